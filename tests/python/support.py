"""Test helpers: start the built server for a test class, and wait for conditions with timeouts."""

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
# The driver that the server runs on: io_uring or epoll.
DRIVER = os.environ.get("POLYCAST_TEST_IO") or "io_uring"
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
# /off, /shared and /dedicated are echo routes with the compression of that name.
CONFIG = (
    "".join(
        f'[[routes]]\nwhen = [{{ path = "/{name}" }}]\nendpoint = "echo"\ncompression = "{name}"\n'
        for name in COMPRESSIONS
    )
    + '[[routes]]\nendpoint = "apps"\ncompression = "shared"\n'
    + APPS
)


class Server:
    """A polycast process. It listens on `port`; with port 0, the kernel chooses a free port."""

    def __init__(self, config=CONFIG, threads=1, port=0):
        self.folder = tempfile.TemporaryDirectory(prefix="polycast-python-")
        folder = pathlib.Path(self.folder.name)
        (folder / "polycast.toml").write_text(config)
        self.log = folder / "log"
        arguments = ["--config", str(folder / "polycast.toml")]
        # A configuration with listeners is used as it is.
        if "listeners" not in config:
            arguments += ["--listen", f"127.0.0.1:{port}"]
        arguments += ["--threads", str(threads), "--no-pin", "--io", DRIVER]
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
        """Sends SIGTERM; the server must drain and exit with code 0, without a panic in its log."""
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
        """Waits at most EVENT_S until `condition()` is true, and returns its value."""
        end = time.monotonic() + EVENT_S
        while not (value := condition()):
            self.assertLess(time.monotonic(), end, f"{what}: not within {EVENT_S} s")
            time.sleep(0.005)
        return value


class WithServer(Waiting):
    """A test class whose tests share one server."""

    config = CONFIG
    threads = 1

    @classmethod
    def setUpClass(cls):
        cls.server = Server(cls.config, cls.threads)

    @classmethod
    def tearDownClass(cls):
        cls.server.stop()


def run(body):
    """Runs a coroutine to its end, with a timeout of TEST_S."""
    return asyncio.run(asyncio.wait_for(body, TEST_S))


LENGTHS = (0, 1, 125, 126, 127, 128, 4096, 65535, 65536, 1 << 20)


def messages():
    """Text and binary messages that an echo must return unchanged."""
    for length in LENGTHS:
        yield "t" * length
        yield bytes(length)
        yield os.urandom(length)
    yield "\u00e9\u4e2d\U0001f600\0" * 1000
    # Repetitive messages, which compress well if the compression window is kept between messages.
    for number in range(50):
        yield f'{{"number":{number},"text":"{"again " * 50}"}}'
