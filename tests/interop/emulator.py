"""The emulator as a process, and its control endpoint. Standard library only."""

import base64
import hashlib
import hmac
import json
import os
import subprocess
import time
import urllib.error
import urllib.parse
import urllib.request

# Nothing that is waited for takes this long, in seconds.
PATIENCE = 15


class Emulator:
    """`iothub-connector emulator iot_hub`, from its ready line on. Ends with the `with` block."""

    def __init__(self, binary, *options):
        # Devices that are refused are no news here.
        environment = {**os.environ, "RUST_LOG": "emulators=error"}
        command = [binary, "emulator", "iot_hub", *options]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment)
        self.line = self.process.stdout.readline()
        if not self.line:
            raise SystemExit(f"the emulator does not start with {' '.join(options)}, see above; port 443 needs root")
        self.ready = json.loads(self.line)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.terminate()
        self.process.wait(timeout=PATIENCE)


class Control:
    """The control endpoint of an emulator, given its ready line."""

    def __init__(self, ready):
        self.ready = ready

    def request(self, method, path, body=None, **query):
        url = self.ready["control"] + path + ("?" + urllib.parse.urlencode(query) if query else "")
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(url, data=data, method=method)
        try:
            with urllib.request.urlopen(request, timeout=PATIENCE) as response:
                content = response.read()
        except urllib.error.HTTPError as error:
            raise AssertionError(f"{method} {path}: {error.code} {error.read().decode()}") from error
        return json.loads(content) if content else None

    def received(self, device_id, number=1):
        """What a device sent, once there are so many messages: body, properties and system properties of each."""
        wait = {"wait": number, "timeout_ms": 5000}
        messages = self.request("GET", "received", device=device_id, **wait)
        members = ("body", "properties", "systemProperties")
        return [{member: message[member] for member in members} for message in messages]

    def send(self, device_id, **message):
        """Enqueues a message to a device."""
        self.request("POST", "c2d", message, device=device_id)

    def states(self, device_id, wait):
        """State and number of deliveries of each message to a device, once as many as asked for are in that state."""
        messages = self.request("GET", "c2d", device=device_id, wait=wait, timeout_ms=5000)
        return [(message["state"], message["deliveryCount"]) for message in messages]


def derived_key(group_key, registration_id):
    """The key of a device of an enrollment group."""
    mac = hmac.new(base64.b64decode(group_key), registration_id.encode(), hashlib.sha256)
    return base64.b64encode(mac.digest()).decode()


def token(key, resource, seconds):
    """A shared access signature that ends in so many seconds."""
    encoded = urllib.parse.quote(resource, safe="")
    expiry = int(time.time()) + seconds
    mac = hmac.new(base64.b64decode(key), f"{encoded}\n{expiry}".encode(), hashlib.sha256)
    signature = urllib.parse.quote(base64.b64encode(mac.digest()), safe="")
    return f"SharedAccessSignature sr={encoded}&sig={signature}&se={expiry}"
