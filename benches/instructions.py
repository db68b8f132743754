"""Counts the instructions that a core of the server executes in user mode for one operation.

`python benches/instructions.py PROGRAM [PROGRAM]` runs each program, a built `polycast`, under
Valgrind's tool callgrind and prints the instructions of its reactor thread, of the second program
with its ratio to the first. Times vary by a fifth on a machine that others share; these counts vary
by less than a hundredth, so they show what a change of the code costs. They leave out the kernel,
caches and mispredicted branches, which `cargo bench --bench loopback` measures.

Each operation is awaited before the next one, so a turn of the reactor has the same work in all
programs; on epoll a message takes one turn or two, so `echo` varies by a third there. Needs
Valgrind and the packages of `tests/python/requirements.txt`. Takes about half a minute for each
program. All connections are on 127.0.0.1.
"""

import argparse
import hashlib
import hmac
import json
import pathlib
import re
import socket
import subprocess
import tempfile
import time

import websocket
from pusher.pusher_client import PusherClient

ID, KEY, SECRET = "1", "app-key", "app-secret"
# The seconds after which a wait is given up.
PATIENCE_S = 60
# The seconds within which a turn of the reactor certainly ends.
TURN_S = 0.005
CHANNEL = "news"
SUBSCRIBERS = 100


class Server:
    """A program under callgrind, which serves its demo application on one core."""

    def __init__(self, program, driver):
        self.folder = tempfile.TemporaryDirectory(prefix="polycast-instructions-")
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.port = free.getsockname()[1]
        self.log = pathlib.Path(self.folder.name) / "log"
        tool = ["valgrind", "-q", "--tool=callgrind", "--separate-threads=yes"]
        out = f"--callgrind-out-file={self.folder.name}/counts"
        listen = ["--listen", f"127.0.0.1:{self.port}", "--threads", "1", "--io", driver]
        with self.log.open("w") as log:
            self.process = subprocess.Popen([*tool, out, program, *listen], stdout=log, stderr=log)
        until = time.monotonic() + PATIENCE_S
        while "polycast listens" not in (text := self.log.read_text()):
            if self.process.poll() is not None or time.monotonic() > until:
                self.close()
                raise SystemExit(f"{program} does not serve: {text}")
            time.sleep(0.1)

    def connect(self, path):
        return websocket.create_connection(f"ws://127.0.0.1:{self.port}{path}", PATIENCE_S)

    def client(self):
        """A client of the demo application, and its socket id."""
        client = self.connect(f"/app/{KEY}?protocol=7")
        return client, json.loads(json.loads(client.recv())["data"])["socket_id"]

    def publisher(self, channel):
        """A connection, and the bytes of a signed request that publishes on a channel: sent as one,
        so that the server receives them in one turn."""
        address = ("127.0.0.1", self.port)
        signer = PusherClient(app_id=ID, key=KEY, secret=SECRET, host=address[0])
        request = signer.trigger.make_request(channel, "tick", "x" * 64)
        lines = [f"POST {request.signed_path} HTTP/1.1", "Host: localhost"]
        fields = {"Content-Length": len(request.body), **request.headers}
        lines += [f"{name}: {value}" for name, value in fields.items()]
        head = "\r\n".join([*lines, "", ""])
        return socket.create_connection(address, PATIENCE_S), head.encode() + request.body

    def counted(self):
        """The instructions since the last call, of the thread that has executed the largest number
        of them."""
        counts = lambda: pathlib.Path(self.folder.name).glob("counts.*")
        for file in counts():
            file.unlink()
        dump = ["callgrind_control", "--dump", str(self.process.pid)]
        subprocess.run(dump, check=True, capture_output=True, timeout=PATIENCE_S)
        totals = (re.search(r"^totals: (\d+)$", file.read_text(), re.M) for file in counts())
        return max(int(total[1]) for total in totals if total)

    def close(self):
        self.process.kill()
        self.process.wait()
        self.folder.cleanup()


def echo(server):
    client = server.connect("/echo")

    def run():
        client.send("a" * 20)
        assert client.recv() == "a" * 20

    return run


def private(server):
    client, socket_id = server.client()
    channel = "private-a"
    signed = hmac.new(SECRET.encode(), f"{socket_id}:{channel}".encode(), hashlib.sha256)
    begin = {"channel": channel, "auth": f"{KEY}:{signed.hexdigest()}"}

    def run():
        client.send(json.dumps({"event": "pusher:subscribe", "data": begin}))
        assert "subscription_succeeded" in client.recv()
        client.send(json.dumps({"event": "pusher:unsubscribe", "data": {"channel": channel}}))
        # An unsubscription has no answer, and is to have a turn of its own.
        time.sleep(TURN_S)

    return run


def api(server):
    publisher, request = server.publisher("nobody")

    def run():
        publisher.sendall(request)
        assert publisher.recv(4096).startswith(b"HTTP/1.1 200 ")

    return run


def fan(server):
    clients = [server.client()[0] for _ in range(SUBSCRIBERS)]
    for client in clients:
        client.send(json.dumps({"event": "pusher:subscribe", "data": {"channel": CHANNEL}}))
        assert "subscription_succeeded" in client.recv()
    publisher, request = server.publisher(CHANNEL)

    def run():
        publisher.sendall(request)
        assert publisher.recv(4096).startswith(b"HTTP/1.1 200 ")
        for client in clients:
            assert "tick" in client.recv()

    return run


# What each row runs, how often it is counted, and how many operations one run of it has. A
# connection may begin 100 subscriptions in a second.
ROWS = {
    "echo": (echo, 3000, 1),
    "private": (private, 600, 1),
    "api": (api, 1000, 1),
    "fan": (fan, 50, SUBSCRIBERS),
}


def count(program, driver, row):
    prepare, times, operations = ROWS[row]
    server = Server(program, driver)
    try:
        run = prepare(server)
        for _ in range(times // 10):
            run()
        server.counted()
        for _ in range(times):
            run()
        return server.counted() / (times * operations)
    finally:
        server.close()


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("programs", nargs="+", metavar="PROGRAM")
    parser.add_argument("--io", default="io_uring", choices=["io_uring", "epoll"])
    parser.add_argument("--rows", default=",".join(ROWS), help="separated by commas")
    arguments = parser.parse_args()
    for row in arguments.rows.split(","):
        counts = [count(program, arguments.io, row) for program in arguments.programs]
        ratios = "".join(f"  {it:8.0f} ({it / counts[0]:.3f})" for it in counts[1:])
        print(f"{row:<8} {counts[0]:8.0f}{ratios}", flush=True)


if __name__ == "__main__":
    main()
