# Lanes of steps that run beside each other. To be sourced by bash 5.1 or newer.
#
#   lane NAME COMMAND...   starts a lane: a function or a command, in a process group of its own
#   step COMMAND...        one step of a lane: its output is printed whole when it ends
#   after NAME...          within a lane: waits until these lanes have succeeded
#   finish                 waits for all lanes
#
# The first step that fails ends everything: all lanes are killed, its output is printed last, and the exit code is 1. The same
# if a lane fails in any other way. Whatever ends the script ends the lanes.

set -m # each lane is a process group
lanes_folder=$(mktemp -d)
declare -A lane_of=() # by process id
trap end_lanes EXIT
trap 'exit 130' INT TERM HUP

lane() {
    local name=$1
    shift
    (
        trap - EXIT INT TERM HUP
        lane_name=$name
        set -e
        "$@"
        touch "$lanes_folder/$lane_name.done"
    ) </dev/null &
    lane_of[$!]=$name
}

step() {
    local began=$SECONDS log
    log=$(mktemp "$lanes_folder/log.XXXXXX")
    say "    $lane_name: $*"
    if "$@" >"$log" 2>&1; then
        say "==> $* ($((SECONDS - began)) s)" "$log"
    else
        printf '==> FAILED after %s s, with exit code %s: %s\n' $((SECONDS - began)) $? "$*" >"$log.title"
        # Only the first one counts: what fails later may do so because it is killed.
        ln "$log" "$lanes_folder/failed" 2>/dev/null && mv "$log.title" "$lanes_folder/failed.title"
        exit 1
    fi
}

# A line and a file, not mixed with what other lanes say.
say() {
    {
        flock 9
        printf '%s\n' "$1"
        if [ $# -gt 1 ]; then cat "$2"; fi
    } 9>>"$lanes_folder/lock"
}

after() {
    local name
    for name in "$@"; do
        while [ ! -e "$lanes_folder/$name.done" ]; do sleep 0.2; done
    done
}

finish() {
    local ended code
    while [ ${#lane_of[@]} -gt 0 ]; do
        code=0
        wait -n -p ended "${!lane_of[@]}" || code=$?
        if [ "$code" -ne 0 ]; then
            failed_lane=${lane_of[$ended]}
            exit 1
        fi
        unset "lane_of[$ended]"
    done
}

end_lanes() {
    local code=$?
    trap - EXIT
    trap '' INT TERM HUP
    # Handlers that a test has started are given time to end.
    for signal in TERM KILL; do
        for group in "${!lane_of[@]}"; do kill -s "$signal" -- "-$group" || continue; done
        [ ${#lane_of[@]} -eq 0 ] || [ "$signal" = KILL ] || sleep 2
    done 2>/dev/null
    wait 2>/dev/null
    if [ -e "$lanes_folder/failed.title" ]; then
        cat "$lanes_folder/failed.title" "$lanes_folder/failed"
        tail -n 1 "$lanes_folder/failed.title"
    elif [ -n "${failed_lane:-}" ]; then
        printf '==> FAILED: lane %s\n' "$failed_lane"
    fi
    rm -r "$lanes_folder"
    exit "$code"
}
