"""Tests of publishing with Pusher's Python library to subscribers that use Pysher."""

import asyncio
import json
import time

import pusher
import pusher.aiohttp
from channels import BRIEF, REFUSED, Subscriber, publisher
from pusher.errors import PusherBadAuth, PusherBadRequest, PusherBadStatus
from support import EVENT_S, SECRET, Server, Waiting, WithServer, run


class Pusher(WithServer):
    config = BRIEF
    threads = 2

    def test_events_on_public_and_private_channels(self):
        subscriber = Subscriber(self, self.server).connected()
        self.assertRegex(subscriber.socket_id, r"^\d+\.\d+$")
        client = publisher(self.server)
        for name in ("news", "private-orders"):
            subscriber.subscribe(name, "tick")
            for data in (
                {"id": 7, "list": [1, 2.5, None, True], "deep": {"a": {"b": {}}}},
                [], {}, 0, None, False, 'quotes " and \\ and \0\b\f\n\r\t\x1f\x7f',
                "\u00e9 \u4e2d\u6587 \u0627\u0644 \U0001f600\u200d \u2028\u2029 \ufeff",
                {"k\u00e9y \U0001f511": "\u00fc" * 1000},
            ):
                self.assertEqual(client.trigger(name, "tick", data), {})
                text = data if isinstance(data, str) else json.dumps(data, ensure_ascii=False)
                self.assertEqual(subscriber.next(), (name, "tick", text))

    def test_several_channels_and_the_excluded_socket(self):
        one = Subscriber(self, self.server).connected()
        other = Subscriber(self, self.server).connected()
        for subscriber in (one, other):
            for name in ("a", "private-b"):
                subscriber.subscribe(name, "tick", "end")
        client = publisher(self.server)
        client.trigger(["a", "private-b"], "tick", {"n": 1}, one.socket_id)
        client.trigger(["a", "private-b"], "end", "")
        ends = [("a", "end", ""), ("private-b", "end", "")]
        self.assertEqual(sorted([one.next(), one.next()]), ends)
        heard = [other.next() for _ in range(4)]
        ticks = [("a", "tick", '{"n": 1}'), ("private-b", "tick", '{"n": 1}')]
        self.assertEqual(sorted(heard), sorted(ends + ticks))

    def test_event_names_are_any_text(self):
        subscriber = Subscriber(self, self.server).connected()
        for event in ("App\\Events\\Paid", "\u00e9v\u00e9nement \U0001f600", 'a "b"', "x" * 200):
            subscriber.client.unsubscribe("news")
            subscriber.subscribe("news", event)
            publisher(self.server).trigger("news", event, "data")
            self.assertEqual(subscriber.next(), ("news", event, "data"))

    def test_bounds(self):
        client = publisher(self.server)
        subscriber = Subscriber(self, self.server).connected()
        subscriber.subscribe("news", "tick")
        for data in ("x" * 10240, "\u00e9" * 5120, "\U0001f600" * 2560, '"' * 10240, "\1" * 10240):
            self.assertEqual(len(data.encode()), 10240)
            client.trigger("news", "tick", data)
            self.assertEqual(subscriber.next(), ("news", "tick", data))
            with self.assertRaises(PusherBadStatus) as refused:
                client.trigger("news", "tick", data + "x")
            self.assertIn("413", str(refused.exception))
        client.trigger([f"c{n}" for n in range(100)], "tick", "data")
        client.trigger("c" * 200, "e" * 200, "data")
        with self.assertRaises(PusherBadRequest):
            client.trigger("news", "pusher:error", "data")
        # The next event is this one: the subscriber received none of the refused events.
        client.trigger("news", "tick", "end")
        self.assertEqual(subscriber.next(), ("news", "tick", "end"))

    def test_wrong_credentials(self):
        for options in ({"secret": "not-the-secret"}, {"key": "not-the-key"}):
            with self.assertRaises(PusherBadAuth):
                publisher(self.server, **options).trigger("news", "tick", "data")
        with self.assertRaises(PusherBadStatus) as refused:
            publisher(self.server, app_id="999").trigger("news", "tick", "data")
        self.assertIn("404", str(refused.exception))

    def test_a_private_channel_with_the_librarys_signature(self):
        subscriber = Subscriber(self, self.server).connected()
        name = "private-orders"

        def sign(**options):
            signer = publisher(self.server, **options)
            return signer.authenticate(channel=name, socket_id=subscriber.socket_id)["auth"]

        answer = subscriber.subscribe(name, auth=sign(secret="not-the-secret"), outcome=REFUSED)
        self.assertEqual((answer["type"], answer["status"]), ("AuthError", 401))
        self.assertNotIn(SECRET, json.dumps(answer))
        subscriber.subscribe(name, "tick", auth=sign())
        publisher(self.server).trigger(name, "tick", "data")
        self.assertEqual(subscriber.next(), (name, "tick", "data"))

    def test_after_an_unsubscribe_nothing_comes(self):
        subscriber = Subscriber(self, self.server).connected()
        subscriber.subscribe("left", "tick")
        subscriber.subscribe("kept", "tick")
        raw = []
        subscriber.client.connection.event_handler = lambda *event: raw.append(event)
        subscriber.client.unsubscribe("left")
        subscriber.settled()
        publisher(self.server).trigger(["left", "kept"], "tick", "data")
        self.until("the event", lambda: raw)
        subscriber.settled()
        self.assertEqual(raw, [("tick", "data", "kept")])

    def test_the_asynchronous_backend(self):
        subscriber = Subscriber(self, self.server).connected()
        subscriber.subscribe("news", "tick")

        async def publish():
            client = publisher(self.server, backend=pusher.aiohttp.AsyncIOBackend)
            await asyncio.gather(*(client.trigger("news", "tick", n) for n in range(50)))

        run(publish())
        heard = sorted(int(subscriber.next()[2]) for _ in range(50))
        self.assertEqual(heard, list(range(50)))

    def test_an_unknown_key_is_given_up(self):
        subscriber = Subscriber(self, self.server, key="no-such-key")
        self.until("the end", lambda: subscriber.client.connection.disconnect_called)


class Drained(Waiting):
    def test_pysher_comes_back_after_a_drain(self):
        first = Server(BRIEF)
        try:
            subscriber = Subscriber(self, first, auto_sub=True, reconnect_interval=0.05).connected()
            subscriber.subscribe("news", "tick")
        finally:
            first.stop()
        connection = subscriber.client.connection
        self.until("the loss", lambda: connection.state != "connected")
        second = Server(BRIEF, port=first.port)
        try:
            subscriber.connected()
            client = publisher(second)
            end = time.monotonic() + EVENT_S
            # Pysher's state becomes `connected` before it has subscribed again, so the event is
            # published until it arrives.
            while subscriber.heard.empty():
                self.assertLess(time.monotonic(), end)
                client.trigger("news", "tick", "again")
                time.sleep(0.02)
            self.assertEqual(subscriber.next(), ("news", "tick", "again"))
        finally:
            second.stop()
