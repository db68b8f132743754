"""Tests of the echo endpoint with three independent WebSocket client libraries."""

import asyncio
import os

import aiohttp
import websocket
from support import COMPRESSIONS, CONFIG, EVENT_S, WithServer, messages, run
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed
from websockets.extensions.permessage_deflate import ClientPerMessageDeflateFactory

SMALL = "[limits]\nframe_bytes = 65536\nmessage_bytes = 65536\n"
CLOSE_CODES = (1000, 1001, 1003, 1007, 1011, 3000, 4000, 4999)
# Frames that violate the protocol: a reserved opcode, a continuation frame without a message, and a
# frame without a mask.
BROKEN = (b"\x83\x80\0\0\0\0", b"\x80\x80\0\0\0\0", b"\x81\x01a")


def offers():
    """The permessage-deflate parameters that a client may offer (RFC 7692, section 7.1)."""
    yield {}
    yield {"server_no_context_takeover": True}
    yield {"client_no_context_takeover": True}
    yield {"server_max_window_bits": 9}
    yield {"server_max_window_bits": 15, "client_max_window_bits": 15}
    yield {"client_max_window_bits": 9}


async def close_code(url, act):
    """The close code that a connection ends with after `act(connection)`."""
    async with connect(url, close_timeout=EVENT_S) as client:
        await act(client)
        try:
            message = await asyncio.wait_for(client.recv(), EVENT_S)
            raise AssertionError(f"not closed, but {len(message)} long")
        except ConnectionClosed:
            return client.close_code


class Websockets(WithServer):
    async def check(self, where, **options):
        url = self.server.url(where)
        async with connect(url, max_size=None, close_timeout=EVENT_S, **options) as client:
            for message in messages():
                await client.send(message)
                self.assertEqual(await asyncio.wait_for(client.recv(), EVENT_S), message)
            # A fragmented message, whose last frame the library sends with an empty payload, and a
            # ping after it.
            for parts in (["one ", "", "tw\u00f6 " * 1000], [b"a", os.urandom(70000), b""]):
                await client.send(parts)
                pong = await client.ping(b"are you there")
                whole = parts[0][:0].join(parts)
                self.assertEqual(await asyncio.wait_for(client.recv(), EVENT_S), whole)
                await asyncio.wait_for(pong, EVENT_S)
            for number in range(1000):
                await client.send(f"{number}" * (number % 100))
            for number in range(1000):
                back = await asyncio.wait_for(client.recv(), EVENT_S)
                self.assertEqual(back, f"{number}" * (number % 100))
            extensions = client.protocol.extensions
        self.assertEqual(client.close_code, 1000)
        return extensions

    def test_without_an_offer(self):
        for name in COMPRESSIONS:
            with self.subTest(name):
                self.assertEqual(run(self.check(f"/{name}", compression=None)), [])

    def test_an_offer_is_declined_where_compression_is_off(self):
        self.assertEqual(run(self.check("/off")), [])

    def test_compressed(self):
        for name in ("shared", "dedicated"):
            for offer in offers():
                with self.subTest(name, **offer):
                    factory = ClientPerMessageDeflateFactory(**offer)
                    used = run(self.check(f"/{name}", compression=None, extensions=[factory]))
                    self.assertEqual([extension.name for extension in used], ["permessage-deflate"])
                    # The library's `remote_*` attributes describe the server's compressor, because
                    # this is the client.
                    kept = not used[0].remote_no_context_takeover
                    wanted = name == "dedicated" and "server_no_context_takeover" not in offer
                    self.assertEqual(kept, wanted)
                    bits = offer.get("server_max_window_bits", 15)
                    self.assertLessEqual(used[0].remote_max_window_bits, bits)

    def test_our_close_code_comes_back(self):
        for name in COMPRESSIONS:
            for code in CLOSE_CODES:
                with self.subTest(name, code=code):
                    act = lambda client: client.close(code, "d\u00f6ne")
                    self.assertEqual(run(close_code(self.server.url(f"/{name}"), act)), code)


class WebsocketsRefused(WithServer):
    config = SMALL + CONFIG

    def test_the_servers_close_codes(self):
        async def write(client, octets):
            client.transport.write(octets)

        acts = [
            (1009, lambda client: client.send(bytes(65537))),
            (1009, lambda client: client.send(os.urandom(65537))),
            (1009, lambda client: client.send([bytes(40000), bytes(40000)])),
            (1007, lambda client: client.send(b"a\xff", text=True)),
            (1007, lambda client: client.send([b"\xe4\xb8", b"a"], text=True)),
        ]
        acts += [(1002, lambda client, octets=octets: write(client, octets)) for octets in BROKEN]
        for name in COMPRESSIONS:
            for number, (code, act) in enumerate(acts):
                with self.subTest(name, number=number):
                    self.assertEqual(run(close_code(self.server.url(f"/{name}"), act)), code)


class Aiohttp(WithServer):
    async def check(self, where, **options):
        url = self.server.url(where)
        async with aiohttp.ClientSession() as session:
            async with session.ws_connect(url, max_msg_size=0, **options) as client:
                for message in messages():
                    if isinstance(message, str):
                        await client.send_str(message)
                        back = await client.receive_str(timeout=EVENT_S)
                    else:
                        await client.send_bytes(message)
                        back = await client.receive_bytes(timeout=EVENT_S)
                    self.assertEqual(back, message)
                compress, no_takeover = client.compress, client.client_notakeover
                await client.close(code=4999, message=b"done")
                self.assertEqual(client.close_code, 4999)
        return compress, no_takeover

    def test_plain(self):
        for name in COMPRESSIONS:
            with self.subTest(name):
                self.assertEqual(run(self.check(f"/{name}"))[0], 0)

    def test_an_offer_is_declined_where_compression_is_off(self):
        self.assertEqual(run(self.check("/off", compress=15))[0], 0)

    def test_compressed(self):
        for name in ("shared", "dedicated"):
            for bits in (15, 9):
                with self.subTest(name, bits=bits):
                    compress, no_takeover = run(self.check(f"/{name}", compress=bits))
                    self.assertGreater(compress, 0)
                    self.assertEqual(no_takeover, name == "shared")

    def test_a_client_without_masks_is_1002(self):
        async def answer():
            async with aiohttp.ClientSession() as session:
                async with session.ws_connect(self.server.url("/off")) as client:
                    client._conn.transport.write(BROKEN[2])
                    message = await client.receive(timeout=EVENT_S)
                    self.assertIs(message.type, aiohttp.WSMsgType.CLOSE)
                    return message.data

        self.assertEqual(run(answer()), 1002)

    def test_the_same_port_speaks_http(self):
        async def status(where):
            url = f"http://{self.server.host}:{self.server.port}{where}"
            async with aiohttp.ClientSession() as session:
                async with session.get(url) as response:
                    return response.status, await response.json()

        code, body = run(status("/apps/1/nothing"))
        self.assertEqual(code, 401)
        self.assertEqual(body["code"], 401)


class WebsocketClient(WithServer):
    """Tests with websocket-client, which is synchronous and does not compress."""

    def open(self, where):
        client = websocket.create_connection(self.server.url(where), timeout=EVENT_S)
        self.addCleanup(client.shutdown)
        return client

    def test_echo(self):
        for name in COMPRESSIONS:
            with self.subTest(name):
                client = self.open(f"/{name}")
                self.assertNotIn("sec-websocket-extensions", client.headers)
                for message in messages():
                    if isinstance(message, str):
                        client.send(message)
                    else:
                        client.send_binary(message)
                    self.assertEqual(client.recv(), message)

    def test_fragments_with_pings_between(self):
        abnf = websocket.ABNF
        client = self.open("/dedicated")
        parts = [b"one ", b"", b"two " * 20000, b"three"]
        for number, part in enumerate(parts):
            opcode = abnf.OPCODE_CONT if number else abnf.OPCODE_BINARY
            client.send_frame(abnf(int(part is parts[-1]), 0, 0, 0, opcode, 1, part))
            client.ping(f"{number}")
        pongs = []
        while True:
            opcode, data = client.recv_data(control_frame=True)
            if opcode != abnf.OPCODE_PONG:
                break
            pongs.append(data)
        self.assertEqual((opcode, data), (abnf.OPCODE_BINARY, b"".join(parts)))
        while len(pongs) < len(parts):
            pongs.append(client.recv_data(control_frame=True)[1])
        self.assertEqual(pongs, [b"0", b"1", b"2", b"3"])

    def test_our_close_code_comes_back(self):
        for name in COMPRESSIONS:
            for code in CLOSE_CODES:
                with self.subTest(name, code=code):
                    client = self.open(f"/{name}")
                    client.send_close(code, "d\u00f6ne".encode())
                    opcode, data = client.recv_data(control_frame=True)
                    self.assertEqual(opcode, websocket.ABNF.OPCODE_CLOSE)
                    self.assertEqual(int.from_bytes(data[:2], "big"), code)

    def test_an_unknown_application_is_refused_with_its_reason(self):
        client = self.open("/app/no-such-key?protocol=7")
        self.assertIn('"code":4001', client.recv())
        opcode, data = client.recv_data(control_frame=True)
        self.assertEqual(opcode, websocket.ABNF.OPCODE_CLOSE)
        self.assertEqual(data, (4001).to_bytes(2, "big") + b"Application does not exist")
