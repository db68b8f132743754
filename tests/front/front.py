#!/usr/bin/env python3
"""Real proxies in front of the server, with the configurations of docs/front.md: HAProxy with the
PROXY protocol, version 2, and with the TLS of the client; nginx with X-Forwarded-For, over TCP and
over a Unix socket. Each test opens WebSockets from several client addresses through the proxy, and
checks that the server counts them by client.

    front.py --binary target/release/polycast
"""

import argparse
import base64
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request

PATIENCE = 15
DOCS = os.path.join(os.path.dirname(__file__), "../../docs/front.md")


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def wait_for(what, holds):
    end = time.monotonic() + PATIENCE
    while time.monotonic() < end:
        if holds():
            return
        time.sleep(0.02)
    raise AssertionError(f"in vain: {what}")


def listens(port):
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


class Process:
    """A process that is ended by its number, with its output in a file."""

    def __init__(self, folder, name, *command):
        self.log = os.path.join(folder, name + ".log")
        with open(self.log, "wb") as log:
            self.process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=log
            )

    def __enter__(self):
        return self

    def __exit__(self, kind, *_):
        self.process.send_signal(signal.SIGTERM)
        try:
            self.process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        if kind is not None:
            with open(self.log, encoding="utf-8", errors="replace") as log:
                print(log.read(), file=sys.stderr)


def example(title):
    """The configuration in docs/front.md whose block begins with `# title`."""
    with open(DOCS, encoding="utf-8") as page:
        blocks = re.findall(r"```\w*\n(.*?)```", page.read(), re.S)
    return next(block for block in blocks if block.startswith(f"# {title}\n"))


class Front:
    """The server and a proxy in front of it."""

    def __init__(self, binary, folder):
        self.binary, self.folder = binary, folder
        self.front, self.back, self.metrics = free_port(), free_port(), free_port()

    def fill(self, text):
        """Replaces what stands in the documentation by what is used here."""
        for old, new in {
            "10.0.0.5:6001": f"127.0.0.1:{self.back}",
            "10.0.0.2": "127.0.0.1/32",
            "/run/polycast/polycast.sock": os.path.join(self.folder, "s"),
            "*:80": f"127.0.0.1:{self.front}",
            "listen 80;": f"listen 127.0.0.1:{self.front};",
        }.items():
            text = text.replace(old, new)
        return text

    def server(self, title):
        path = os.path.join(self.folder, "polycast.toml")
        with open(path, "w", encoding="utf-8") as file:
            file.write(
                "threads = 2\npin = false\nlimits.connections_per_address = 2\n"
                + self.fill(example(title))
                + f"[[listeners]]\naddress = '127.0.0.1:{self.metrics}'\n"
                "[metrics]\nopen = true\n"
                "[[apps]]\nid = '1'\nkey = 'app-key'\nsecret = 'app-secret'\n"
            )
        server = Process(self.folder, "polycast", self.binary, "--config", path)
        wait_for("the server", lambda: listens(self.metrics))
        return server

    def count(self, name):
        url = f"http://127.0.0.1:{self.metrics}/metrics"
        with urllib.request.urlopen(url, timeout=PATIENCE) as answer:
            text = answer.read().decode()
        values = re.findall(rf"^polycast_{name}(?:_total)?(?:{{[^}}]*}})? (\d+)", text, re.M)
        return sum(map(int, values))

    def opens(self, client, fields=""):
        """Opens a WebSocket from a client address. Returns it, or None if it is refused."""
        peer = socket.create_connection(
            ("127.0.0.1", self.front), PATIENCE, source_address=(client, 0)
        )
        key = base64.b64encode(os.urandom(16)).decode()
        peer.sendall(
            f"GET /echo HTTP/1.1\r\nHost: front\r\nUpgrade: websocket\r\n"
            f"Connection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
            f"Sec-WebSocket-Key: {key}\r\n{fields}\r\n".encode()
        )
        head = b""
        try:
            while not head.endswith(b"\r\n\r\n"):
                byte = peer.recv(1)
                if not byte:
                    break
                head += byte
        except ConnectionResetError:
            pass
        if not head.startswith(b"HTTP/1.1 101"):
            peer.close()
            return None
        peer.sendall(b"\x81\x82\0\0\0\0hi")
        assert peer.recv(4) == b"\x81\x02hi"
        return peer

    def check(self):
        """Two connections of a client are served, the third is not, other clients are."""
        # A client's own fields must not change who it is.
        lie = "X-Forwarded-For: 192.0.2.99\r\nForwarded: for=192.0.2.99\r\n"
        peers = []
        for client, fields, expected in [
            ("127.0.0.11", "", True),
            ("127.0.0.11", lie, True),
            ("127.0.0.11", "", False),
            ("127.0.0.11", lie, False),
            ("127.0.0.12", lie, True),
        ]:
            peer = self.opens(client, fields)
            peers.append(peer)
            assert (peer is not None) == expected, f"{client} {fields}"
        assert self.count("refused_address") == 2, self.count("refused_address")
        for peer in filter(None, peers):
            peer.close()
        wait_for("a free place", lambda: self.again("127.0.0.11"))

    def again(self, client):
        peer = self.opens(client)
        if peer:
            peer.close()
        return peer is not None


def haproxy(front):
    path = os.path.join(front.folder, "haproxy.cfg")
    with open(path, "w", encoding="utf-8") as file:
        file.write(front.fill(example("haproxy.cfg")))
    with front.server("polycast.toml behind HAProxy"):
        with Process(front.folder, "haproxy", "haproxy", "-db", "-f", path):
            wait_for("HAProxy", lambda: listens(front.front))
            front.check()
            # The health checks of HAProxy are LOCAL headers, and so are counted as headers.
            wait_for("health checks", lambda: front.count("proxy_headers") > 8)
            for name in ("malformed", "missing", "untrusted", "torn"):
                assert front.count(f"proxy_headers_{name}") == 0, name
    # A header is missing if HAProxy does not send one.
    with open(path, encoding="utf-8") as file:
        text = file.read()
    with open(path, "w", encoding="utf-8") as file:
        file.write(re.sub(" send-proxy-v2.*", "", text))
    with front.server("polycast.toml behind HAProxy"):
        with Process(front.folder, "haproxy", "haproxy", "-db", "-f", path):
            wait_for("HAProxy", lambda: listens(front.front))
            assert front.opens("127.0.0.11") is None
            assert front.count("proxy_headers_missing") > 0


def nginx(front, site, server):
    path = os.path.join(front.folder, "nginx.conf")
    folder = front.folder
    with open(path, "w", encoding="utf-8") as file:
        file.write(
            f"pid {folder}/nginx.pid;\nerror_log stderr;\ndaemon off;\nuser root;\n"
            "events {}\nhttp {\naccess_log off;\n"
        )
        for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi"):
            file.write(f"{kind}_temp_path {folder}/{kind};\n")
        file.write(front.fill(example(site)) + "}\n")
    with front.server(server):
        with Process(folder, "nginx", "nginx", "-p", folder, "-c", path, "-e", "stderr"):
            wait_for("nginx", lambda: listens(front.front))
            front.check()
            assert front.count("forwarded_malformed") == 0
            assert front.count("forwarded_untrusted") == 0


TESTS = {
    "haproxy": haproxy,
    "nginx": lambda front: nginx(front, "nginx, over TCP", "polycast.toml behind nginx"),
    "nginx-unix": lambda front: nginx(
        front, "nginx, over a Unix socket", "polycast.toml behind nginx on this machine"
    ),
}


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--binary", required=True)
    parser.add_argument("tests", nargs="*", choices=[*TESTS, []], default=[])
    arguments = parser.parse_args()
    for name in arguments.tests or TESTS:
        program = name.split("-", maxsplit=1)[0]
        if shutil.which(program) is None:
            print(f"SKIPPED: {program} is missing")
            sys.exit(1)
        folder = tempfile.mkdtemp(prefix="polycast-front-")
        try:
            begun = time.monotonic()
            TESTS[name](Front(os.path.abspath(arguments.binary), folder))
            print(f"{name}: ok, {time.monotonic() - begun:.1f} s")
        finally:
            shutil.rmtree(folder)


if __name__ == "__main__":
    main()
