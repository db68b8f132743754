"""Starts the built server for one test class, and waits for things with a bound on time."""

import asyncio
import os
import pathlib
import re
import subprocess
import tempfile
import threading
import time
import unittest

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
BINARY = os.environ.get("POLYCAST", str(ROOT / "target" / "release" / "polycast"))
START_S = 15
STOP_S = 15
EVENT_S = 10
TEST_S = 60
LISTENS = re.compile(r"^polycast listens on https?://(\S+):(\d+) and wss?://\S+$")
FIXTURES = ROOT / "tests" / "fixtures"

APP_ID = "1"
KEY = "app-key"
SECRET = "app-secret"

COMPRESSIONS = ("off", "shared", "dedicated")
APPS = f"""
[[apps]]
id = "{APP_ID}"
key = "{KEY}"
secret = "{SECRET}"
"""
# /off, /shared and /dedicated echo with that compression.
CONFIG = (
    "".join(
        f'[[routes]]\nwhen = [{{ path = "/{name}" }}]\nendpoint = "echo"\ncompression = "{name}"\n'
        for name in COMPRESSIONS
    )
    + '[[routes]]\nendpoint = "apps"\ncompression = "shared"\n'
    + APPS
)


class Server:
    """polycast on a port of the kernel's choice, unless there is a `port`."""

    def __init__(self, config=CONFIG, threads=1, port=0):
        self.folder = tempfile.TemporaryDirectory(prefix="polycast-python-")
        folder = pathlib.Path(self.folder.name)
        (folder / "polycast.toml").write_text(config)
        self.log = folder / "log"
        arguments = ["--config", str(folder / "polycast.toml")]
        # A configuration with listeners of its own keeps them.
        if "listeners" not in config:
            arguments += ["--listen", f"127.0.0.1:{port}"]
        arguments += ["--threads", str(threads), "--no-pin"]
        with self.log.open("w") as log:
            self.process = subprocess.Popen(
                [BINARY, *arguments], stdout=subprocess.PIPE, stderr=log, text=True
            )
        killer = threading.Timer(START_S, self.process.kill)
        killer.start()
        found = LISTENS.match(self.process.stdout.readline())
        killer.cancel()
        if not found:
            self.process.kill()
            self.process.wait()
            raise AssertionError(f"the server did not start:\n{self.log.read_text()}")
        self.host = found[1]
        self.port = int(found[2])

    def secure_url(self, where):
        return f"wss://{self.host}:{self.port}{where}"

    def url(self, where):
        return f"ws://{self.host}:{self.port}{where}"

    def stop(self):
        """SIGTERM; the server must drain and exit with 0."""
        try:
            self.process.terminate()
            code = self.process.wait(STOP_S)
            errors = self.log.read_text()
            assert code == 0, f"exit code {code}\n{errors}"
            assert "panicked" not in errors, errors
        finally:
            self.process.kill()
            self.process.wait()
            self.process.stdout.close()
            self.folder.cleanup()


class Waiting(unittest.TestCase):
    def until(self, what, condition):
        """Waits until `condition()` is true, and gives what it returned."""
        end = time.monotonic() + EVENT_S
        while not (value := condition()):
            self.assertLess(time.monotonic(), end, f"{what}: not within {EVENT_S} s")
            time.sleep(0.005)
        return value


class WithServer(Waiting):
    """Tests that share a server."""

    config = CONFIG
    threads = 1

    @classmethod
    def setUpClass(cls):
        cls.server = Server(cls.config, cls.threads)

    @classmethod
    def tearDownClass(cls):
        cls.server.stop()


def run(body):
    """Runs a coroutine to its end, with a bound on time."""
    return asyncio.run(asyncio.wait_for(body, TEST_S))


LENGTHS = (0, 1, 125, 126, 127, 128, 4096, 65535, 65536, 1 << 20)


def messages():
    """Texts and bytes that an echo must not change."""
    for length in LENGTHS:
        yield "t" * length
        yield bytes(length)
        yield os.urandom(length)
    yield "\u00e9\u4e2d\U0001f600\0" * 1000
    # The same again and again: what a kept window is for.
    for number in range(50):
        yield f'{{"number":{number},"text":"{"again " * 50}"}}'
