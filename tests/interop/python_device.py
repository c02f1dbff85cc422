"""Microsoft's unmodified Python device SDK against the emulator.

Usage: python_device.py READY_LINE. Prints a line for each case, then `N passed, N failed`.
`python_device.py READY_LINE hold DEVICE` connects, subscribes, says so and waits to be killed.

The SDK can use ports 8883 and 443 only: the emulator must have both on an address of its own.
"""

import json
import logging
import os
import queue
import signal
import subprocess
import sys
import threading
import time
import traceback

from azure.iot.device import IoTHubDeviceClient, Message, ProvisioningDeviceClient
from azure.iot.device.exceptions import ClientError, CredentialError

import emulator

# A case that takes longer, in seconds, has failed.
PATIENCE = 12

READY = json.loads(sys.argv[1])
HOST = READY["mqtt"].split(":")[0]
CONTROL = emulator.Control(READY)
with open(READY["ca"]) as file:
    CA = file.read()

ODD = {
    "plain": "1",
    "with space": "x y",
    "+&=%/?#": "+ & = % / ? #",
    "größe": "äöü ß €",
    "percent": "%20%",
}


def client(device_id, key=READY["key"], **options):
    return IoTHubDeviceClient.create_from_symmetric_key(
        symmetric_key=key,
        hostname=HOST,
        device_id=device_id,
        server_verification_cert=CA,
        connection_retry=False,
        **options,
    )


def registering(registration_id, key=None, **options):
    return ProvisioningDeviceClient.create_from_symmetric_key(
        provisioning_host=HOST,
        registration_id=registration_id,
        id_scope=READY["idScope"],
        symmetric_key=key or emulator.derived_key(READY["groupKey"], registration_id),
        server_verification_cert=CA,
        **options,
    )


def inbox(device):
    """A queue of the messages to a device."""
    messages = queue.Queue()
    device.on_message_received = messages.put
    return messages


def equal(found, expected):
    assert found == expected, f"{found!r} instead of {expected!r}"


def refused(error, action):
    """The action fails with this error."""
    try:
        action()
    except error:
        return
    raise AssertionError(f"there was no {error.__name__}")


def provisions(registration_id, **options):
    result = registering(registration_id, **options).register()
    equal(result.status, "assigned")
    state = result.registration_state
    equal((state.device_id, state.assigned_hub), (registration_id, HOST))
    device = IoTHubDeviceClient.create_from_symmetric_key(
        symmetric_key=emulator.derived_key(READY["groupKey"], registration_id),
        hostname=state.assigned_hub,
        device_id=state.device_id,
        server_verification_cert=CA,
        **options,
    )
    device.send_message("from a new device")
    device.shutdown()
    equal(CONTROL.received(registration_id)[0]["body"], "from a new device")


def registers_and_sends():
    provisions("py-dps")


def registers_and_sends_over_web_socket():
    provisions("py-dps-ws", websockets=True)


def is_not_registered_with_a_bad_key():
    # The SDK has no error of its own for this: the status is in its text.
    device = registering("py-dps-bad", READY["key"])
    try:
        device.register()
    except Exception as error:
        assert "401" in f"{error!r} {error.__cause__!r}", repr(error)
    else:
        raise AssertionError("it was registered")


def sends(device, device_id):
    message = Message('{"temperature":21.5,"ort":"Größe"}', content_type="application/json", content_encoding="utf-8")
    message.message_id = "a b/1+ü"
    message.correlation_id = "c&d"
    message.custom_properties = dict(ODD)
    device.send_message(message)
    device.send_message("second")
    device.shutdown()
    system = {"$.mid": "a b/1+ü", "$.cid": "c&d", "$.ct": "application/json", "$.ce": "utf-8"}
    first = {"body": '{"temperature":21.5,"ort":"Größe"}', "properties": ODD, "systemProperties": system}
    equal(CONTROL.received(device_id, 2), [first, {"body": "second", "properties": {}, "systemProperties": {}}])


def sends_telemetry_with_properties():
    text = f"HostName=myhub.azure-devices.net;DeviceId=py-telemetry;SharedAccessKey={READY['key']};GatewayHostName={HOST}"
    sends(IoTHubDeviceClient.create_from_connection_string(text, server_verification_cert=CA), "py-telemetry")


def sends_telemetry_over_web_socket():
    sends(client("py-ws", websockets=True), "py-ws")


def receives_a_message():
    device = client("py-c2d")
    messages = inbox(device)
    device.connect()
    CONTROL.send("py-c2d", body="open the valve", messageId="m 1", correlationId="c/1", properties={"a+&%": "+ & = % / ?"})
    message = messages.get(timeout=5)
    equal((message.data, message.message_id, message.correlation_id), (b"open the valve", "m 1", "c/1"))
    equal(message.custom_properties, {"a+&%": "+ & = % / ?"})
    equal(CONTROL.states("py-c2d", "completed:1"), [("completed", 1)])
    device.shutdown()


def receives_again_what_was_not_acknowledged():
    command = [sys.executable, __file__, sys.argv[1], "hold", "py-again"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as first:
        try:
            equal(first.stdout.readline(), "connected\n")
            # It cannot acknowledge any more what it is sent from now on.
            first.send_signal(signal.SIGSTOP)
            CONTROL.send("py-again", body="once more")
            equal(CONTROL.states("py-again", "locked:1"), [("locked", 1)])
        finally:
            first.kill()
    device = client("py-again")
    messages = inbox(device)
    device.connect()
    equal(messages.get(timeout=5).data, b"once more")
    equal(CONTROL.states("py-again", "completed:1"), [("completed", 2)])
    device.shutdown()


def reads_its_twin_and_reports():
    device = client("py-twin")
    equal(device.get_twin(), {"desired": {"$version": 1}, "reported": {"$version": 1}})
    device.patch_twin_reported_properties({"firmware": "1.0", "ort": "Größe"})
    equal(device.get_twin()["reported"], {"firmware": "1.0", "ort": "Größe", "$version": 2})
    device.shutdown()


def is_refused_with_a_bad_key():
    refused(CredentialError, client("py-bad", emulator.derived_key(READY["key"], "any")).connect)


def is_refused_with_an_expired_token():
    # The SDK takes no expired token, but one that expires before it connects.
    seconds = 2
    token = emulator.token(READY["key"], f"{HOST}/devices/py-expired", seconds)
    device = IoTHubDeviceClient.create_from_sastoken(token, server_verification_cert=CA, connection_retry=False)
    time.sleep(seconds + 1)
    refused(CredentialError, device.connect)


def is_refused_when_disabled():
    CONTROL.request("PUT", "devices", {"enabled": False, "key": READY["key"]}, device="py-disabled")
    refused(CredentialError, client("py-disabled").connect)


CASES = [
    registers_and_sends,
    registers_and_sends_over_web_socket,
    is_not_registered_with_a_bad_key,
    sends_telemetry_with_properties,
    sends_telemetry_over_web_socket,
    receives_a_message,
    receives_again_what_was_not_acknowledged,
    reads_its_twin_and_reports,
    is_refused_with_a_bad_key,
    is_refused_with_an_expired_token,
    is_refused_when_disabled,
]


def run(case):
    """Whether a case passes, in time."""
    failures = queue.Queue()

    def guarded():
        try:
            case()
            failures.put(None)
        except BaseException as error:
            failures.put(f"{error!r} ({traceback.extract_tb(error.__traceback__)[-1].name})")

    threading.Thread(target=guarded, daemon=True).start()
    try:
        failure = failures.get(timeout=PATIENCE)
    except queue.Empty:
        failure = f"took more than {PATIENCE} s"
    print(f"FAILED {case.__name__}: {failure}" if failure else f"ok {case.__name__}", flush=True)
    return not failure


def hold(device_id):
    device = client(device_id)
    inbox(device)
    device.connect()
    print("connected", flush=True)
    signal.pause()


if __name__ == "__main__":
    # The SDK logs with a traceback what it then raises.
    logging.disable(logging.CRITICAL)
    if sys.argv[2:3] == ["hold"]:
        hold(sys.argv[3])
    passed = sum([run(case) for case in CASES])
    print(f"{passed} passed, {len(CASES) - passed} failed", flush=True)
    # Clients that failed have threads that never end.
    os._exit(passed != len(CASES))
