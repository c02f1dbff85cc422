"""How long the first poll takes where the metadata address of virtual machines, 169.254.169.254, does not answer.

    python3 benches/metadata_address.py target/debug/iothub-connector [folder of a packaged app]

Needs Linux and root. Each run is in a network namespace of its own, with nothing but loopback and that address; all services
are emulated there by `local`. Prints the medians of 5 runs, in seconds: from the handler's start to the end of its first poll.
"""

import json
import statistics
import subprocess
import sys
import tempfile
from datetime import datetime

RUNS = 5
# The kernel need not ask who has the address: what is sent to it is lost.
SILENT = """
ip link add metadata type veth peer name nobody && ip link set metadata up && ip link set nobody up
ip address add 169.254.1.1/16 dev metadata
ip neighbour add 169.254.169.254 lladdr 02:00:00:00:00:01 dev metadata
"""
MUTE = """
ip address add 169.254.169.254/32 dev lo
python3 -c "import socket, time; s = socket.create_server(('169.254.169.254', 80)); time.sleep(60)" &
sleep 0.5
"""
NETWORKS = {
    "no route to the address": "",
    "packets to the address are lost": SILENT,
    "the address takes connections, and answers nothing": MUTE,
}


def seconds(app, network, settings):
    with tempfile.NamedTemporaryFile("w", suffix=".json") as file:
        json.dump({"IsEncrypted": False, "Values": settings}, file)
        file.flush()
        local = [app[0], "local", "--for", "8s", "--json", "--settings", file.name]
        local += ["--app", app[1], "--packaged"] if app[1:] else []
        script = f"ip link set lo up\n{network}\n\"$@\"\ncode=$?\nkill $(jobs -p) 2>/dev/null\nexit $code"
        run = subprocess.run(
            ["unshare", "--net", "bash", "-c", script, "bash", *local], capture_output=True, text=True, timeout=60
        )
    lines = [json.loads(line) for line in run.stdout.splitlines() + run.stderr.splitlines() if line.startswith("{")]
    at = {}
    for line in lines:
        for text in ("the connector has started", "rapidM2MForwarding: 3 of 3 sites polled"):
            if line.get("message", "").startswith(text):
                at.setdefault(text, datetime.fromisoformat(line["timestamp"]))
    if len(at) < 2:
        sys.exit(f"no poll within 8 s:\n{run.stdout}{run.stderr}")
    started, polled = at.values()
    return (polled - started).total_seconds()


for name, network in NETWORKS.items():
    for settings in ({}, {"COSMOS_DISABLE_IMDS": "1"}):
        runs = [seconds(sys.argv[1:], network, settings) for _ in range(RUNS)]
        print(f"{name}, {settings or 'not set'}: {statistics.median(runs):.2f} ({min(runs):.2f} to {max(runs):.2f})", flush=True)
