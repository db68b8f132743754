"""What the tests of this folder share: commands, scratch folders, a server and its clients."""

import base64
import hashlib
import hmac
import json
import os
import shutil
import socket
import subprocess
import tempfile
import time
import urllib.error
import urllib.request
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PATIENCE_S = 120


def run(*command, check=True, **options):
    """Runs a command and returns what it has printed. `check` makes a failure an AssertionError
    with its output."""
    command = [str(word) for word in command]
    done = subprocess.run(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        text=True, check=False, **options,
    )
    if check and done.returncode != 0:
        raise AssertionError(f"{command} ended with {done.returncode}:\n{done.stdout}{done.stderr}")
    return done


def scratch(test):
    """A new folder that is removed after the test."""
    folder = Path(tempfile.mkdtemp(prefix="polycast-packages-"))
    test.addCleanup(shutil.rmtree, folder, ignore_errors=True)
    return folder


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class Server:
    """A process that serves the application of these variables. It is ended by its number after the
    test."""

    VARIABLES = {
        "POLYCAST_APP_ID": "1", "POLYCAST_APP_KEY": "a-key", "POLYCAST_APP_SECRET": "a-secret",
    }

    def __init__(self, test, port, *command, env=None, **options):
        env = env or self.VARIABLES
        self.port = port
        self.key, self.secret = env["POLYCAST_APP_KEY"], env["POLYCAST_APP_SECRET"]
        self.log = scratch(test) / "log"
        with open(self.log, "wb") as log:
            self.process = subprocess.Popen(
                [str(word) for word in command], stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                env=env, **options,
            )
        test.addCleanup(self.stop)
        self._wait_until_ready()

    def stop(self):
        """Ends the server by SIGTERM, and returns its exit code."""
        if self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(PATIENCE_S)
            except subprocess.TimeoutExpired:
                self.process.kill()
        return self.process.wait()

    def text(self):
        return self.log.read_text(encoding="utf-8", errors="replace")

    def _wait_until_ready(self):
        end = time.monotonic() + PATIENCE_S
        while time.monotonic() < end:
            if self.process.poll() is not None:
                raise AssertionError(f"the server has ended:\n{self.text()}")
            try:
                with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/ready", timeout=5):
                    return
            except (urllib.error.URLError, OSError):
                time.sleep(0.05)
        raise AssertionError(f"not ready after {PATIENCE_S} s:\n{self.text()}")

    def delivers(self, data):
        """Subscribes a WebSocket to a channel, publishes `data` by the signed HTTP API, and returns
        what the subscriber gets."""
        client = Client(self.port, self.key)
        try:
            client.send({"event": "pusher:subscribe", "data": {"channel": "news"}})
            client.until("pusher_internal:subscription_succeeded")
            self._publish("news", "tick", data)
            return client.until("tick")["data"]
        finally:
            client.socket.close()

    def _publish(self, channel, event, data):
        body = json.dumps({"name": event, "channel": channel, "data": data}).encode()
        query = "&".join([
            f"auth_key={self.key}", f"auth_timestamp={int(time.time())}", "auth_version=1.0",
            f"body_md5={hashlib.md5(body).hexdigest()}",
        ])
        signed = f"POST\n/apps/1/events\n{query}".encode()
        signature = hmac.new(self.secret.encode(), signed, hashlib.sha256).hexdigest()
        url = f"http://127.0.0.1:{self.port}/apps/1/events?{query}&auth_signature={signature}"
        request = urllib.request.Request(url, body, {"Content-Type": "application/json"})
        with urllib.request.urlopen(request, timeout=PATIENCE_S) as response:
            assert response.status == 200, response.status


class Client:
    """A WebSocket client of the application, for small messages."""

    def __init__(self, port, key):
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=PATIENCE_S)
        nonce = base64.b64encode(os.urandom(16)).decode()
        self.socket.sendall(
            f"GET /app/{key}?protocol=7 HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\n"
            "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
            f"Sec-WebSocket-Key: {nonce}\r\n\r\n".encode()
        )
        self.stream = self.socket.makefile("rb")
        status = self.stream.readline()
        assert b" 101 " in status, status
        while self.stream.readline() not in (b"\r\n", b""):
            pass
        self.until("pusher:connection_established")

    def send(self, message):
        payload = json.dumps(message).encode()
        assert len(payload) < 126
        key = os.urandom(4)
        masked = bytes(octet ^ key[i % 4] for i, octet in enumerate(payload))
        self.socket.sendall(bytes([0x81, 0x80 | len(payload)]) + key + masked)

    def until(self, event):
        """Reads messages until one has this event, and returns it."""
        while True:
            first, length = self.stream.read(2)
            if length == 126:
                length = int.from_bytes(self.stream.read(2), "big")
            payload = self.stream.read(length)
            assert first == 0x81, (first, payload)
            message = json.loads(payload)
            if message["event"] == event:
                return message
