"""Runs the suites of Microsoft's device SDKs against the emulator: as it is, where everything must pass, and broken in two
ways, where exactly the cases must fail that are there to notice. Both suites run side by side, each with an emulator of its
own on a loopback address of its own, since the SDKs insist on ports 8883 and 443. Port 443 needs root, or
`sysctl net.ipv4.ip_unprivileged_port_start=443`.

Usage: run.py CONNECTOR PYTHON, the binary under test and an interpreter that has the Python SDK.
"""

import os
import pathlib
import random
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

from emulator import Control, Emulator

HERE = pathlib.Path(__file__).parent

# A suite that takes longer, in seconds, is given up.
PATIENCE = 100

# Which cases notice when the emulator is broken.
BROKEN = {
    "misspellTopics": {
        "python": {
            "receives_a_message",
            "receives_again_what_was_not_acknowledged",
            "reads_its_twin_and_reports",
        },
        "node": {
            "receivesAMessageOverMqtt",
            "receivesAgainWhatWasNotAcknowledged",
            "readsItsTwinAndReports",
        },
    },
    "acceptAnyToken": {
        "python": {
            "is_not_registered_with_a_bad_key",
            "is_refused_with_a_bad_key",
            "is_refused_with_an_expired_token",
            "is_refused_when_disabled",
        },
        "node": {
            "isNotRegisteredWithABadKeyOverMqtt",
            "isNotRegisteredWithABadKeyOverHttps",
            "isRefusedWithABadKeyOverMqtt",
            "isRefusedWithABadKeyOverWebSocket",
            "isRefusedWithABadKeyOverHttps",
            "isRefusedWithAnExpiredTokenOverMqtt",
            "isRefusedWithAnExpiredTokenOverHttps",
            "isRefusedWhenDisabled",
        },
    },
}


def run(suite, fault):
    """Runs one suite, with a fault or without: whether the right cases pass and fail, and lines that tell."""
    connector, python = sys.argv[1:]
    command = [python, HERE / "python_device.py"] if suite == "python" else ["node", HERE / "node_device.js"]
    # The Python SDK takes no port; the Node SDK takes one for MQTT.
    mqtt_port = "8883" if suite == "python" else "0"
    host = f"127.{random.randint(1, 254)}.{random.randint(0, 254)}.{random.randint(1, 254)}"
    options = ["--host", host, "--mqtt-port", mqtt_port, "--https-port", "443", "--dps-retry-after", "0"]
    with Emulator(connector, *options) as emulator:
        if fault:
            Control(emulator.ready).request("PUT", "faults", {fault: True})
        environment = {**os.environ, "NODE_EXTRA_CA_CERTS": emulator.ready["ca"]}
        arguments = [*command, emulator.line]
        done = subprocess.run(arguments, stdout=subprocess.PIPE, text=True, env=environment, timeout=PATIENCE)
    lines = done.stdout.splitlines()
    failed = {line.split()[1].rstrip(":") for line in lines if line.startswith("FAILED ")}
    passed = {line.split()[1] for line in lines if line.startswith("ok ")}
    expected = BROKEN[fault][suite] if fault else set()
    summary = f"{len(passed)} passed, {len(failed)} failed"
    # Without the closing line it has not come to its end.
    good = failed == expected and passed and lines[-1] == summary
    mode = f"with {fault} " if fault else ""
    if good and fault:
        lines = [f"{len(failed)} cases fail, and they are the right ones"]
    elif fault:
        lines.append(f"expected to fail: {', '.join(sorted(expected))}")
    return good, [f"{suite} {mode}| {line}" for line in lines]


def main():
    all_good = True
    for fault in [None, *BROKEN]:
        with ThreadPoolExecutor() as pool:
            for good, lines in pool.map(lambda suite: run(suite, fault), ["python", "node"]):
                print("\n".join(lines), flush=True)
                all_good = all_good and good
    sys.exit(0 if all_good else "the SDKs and the emulator do not get along, see above")


if __name__ == "__main__":
    main()
