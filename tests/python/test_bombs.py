"""Decompression bombs: compressed messages of a few kilobytes that inflate to the maximum message
size, from many connections at the same time. The memory of the server must stay bounded."""

import os
import pathlib
import socket
import struct
import zlib

from support import WithServer

CONNECTIONS = 50
INFLATED = 16 << 20
# The maximum memory of the whole server process. If all messages were inflated at the same time,
# they alone would take 800 MiB.
PEAK_BYTES = 400 << 20
# The timeout of a connection, in seconds. It is long, because other tests may use all cores.
ANSWER_S = 120


def bomb():
    """The payload of a compressed message of INFLATED equal bytes."""
    squeeze = zlib.compressobj(9, zlib.DEFLATED, -15)
    data = squeeze.compress(b"x" * INFLATED) + squeeze.flush(zlib.Z_SYNC_FLUSH)
    return data.removesuffix(b"\x00\x00\xff\xff")


def frame(payload):
    """A masked binary frame with FIN and RSV1: a whole compressed message."""
    mask = os.urandom(4)
    padded = payload + bytes(-len(payload) % 4)
    word = int.from_bytes(mask * (len(padded) // 4), "big")
    masked = (int.from_bytes(padded, "big") ^ word).to_bytes(len(padded), "big")[: len(payload)]
    return b"\xc2\xfe" + struct.pack(">H", len(payload)) + mask + masked


class Connection:
    def __init__(self, server, path):
        self.socket = socket.create_connection((server.host, server.port), ANSWER_S)
        self.file = self.socket.makefile("rb")
        self.socket.sendall(
            f"GET {path} HTTP/1.1\r\nHost: {server.host}\r\nConnection: Upgrade\r\n"
            "Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
            "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
            "Sec-WebSocket-Extensions: permessage-deflate\r\n\r\n".encode()
        )
        self.head = b""
        while not self.head.endswith(b"\r\n\r\n"):
            self.head += self.file.readline() or b"\r\n\r\n"

    def message(self):
        """Reads the next message. Returns the number of its bytes that are not `x`, and of all its
        bytes."""
        inflate, other, total, final = zlib.decompressobj(-15), 0, 0, False
        compressed = None
        while not final:
            first, second = self.file.read(2)
            final = bool(first & 0x80)
            if compressed is None:
                assert first & 0x0F == 2, f"the opcode {first & 0x0F}"
                compressed = bool(first & 0x40)
            length = second
            if length == 126:
                (length,) = struct.unpack(">H", self.file.read(2))
            elif length == 127:
                (length,) = struct.unpack(">Q", self.file.read(8))
            data = self.file.read(length)
            if compressed:
                data = inflate.decompress(data + (b"\x00\x00\xff\xff" if final else b""))
            total += len(data)
            other += len(data) - data.count(b"x")
        return other, total

    def close(self):
        self.file.close()
        self.socket.close()


def peak(process):
    """The peak resident memory of a process (VmHWM) in bytes."""
    status = pathlib.Path(f"/proc/{process.pid}/status").read_text()
    (line,) = (line for line in status.splitlines() if line.startswith("VmHWM:"))
    return int(line.split()[1]) * 1024


class Bombs(WithServer):
    threads = 2

    def send(self, path):
        payload = bomb()
        self.assertLess(len(payload), 20_000)
        crowd = [Connection(self.server, path) for _ in range(CONNECTIONS)]
        for connection in crowd:
            self.addCleanup(connection.close)
            self.assertIn(b"permessage-deflate", connection.head)
        # All connections send their message before any reply is read.
        for connection in crowd:
            connection.socket.sendall(frame(payload))
        for connection in crowd:
            self.assertEqual(connection.message(), (0, INFLATED))
        most = peak(self.server.process)
        self.assertLess(most, PEAK_BYTES, f"{most >> 20} MiB at {path}")
        print(f"{CONNECTIONS} bombs at {path}: {most >> 20} MiB at the peak")

    def test_shared(self):
        self.send("/shared")

    def test_dedicated(self):
        self.send("/dedicated")
