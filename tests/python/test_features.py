"""Tests of all features of Pusher's Python library, with Pysher as subscriber where possible."""

import base64
import json
import queue

import nacl.secret
import pusher.errors
from channels import BRIEF, REFUSED, SUBSCRIBED, Endpoint, Subscriber, publisher
from support import EVENT_S, Server, Waiting, WithServer

MASTER = base64.b64encode(b"0123456789abcdef0123456789abcdef").decode()
# Settings of the application, appended to a configuration that ends with its `[[apps]]` table.
SWITCHES = "client_events = true\nsubscription_count = true\nwatchlist = true\n"
ADDED = "pusher_internal:member_added"
REMOVED = "pusher_internal:member_removed"
COUNT = "pusher_internal:subscription_count"
MISS = "pusher:cache_miss"


class Features(WithServer):
    config = BRIEF + SWITCHES
    threads = 2

    def subscriber(self, **options):
        return Subscriber(self, self.server, **options).connected()

    def signed_in(self, data):
        subscriber = self.subscriber()
        return subscriber, self.sign_in(subscriber, data)

    def sign_in(self, subscriber, data, **options):
        """Signs a user in. Returns a queue of (event, data) with the server's reply to the sign-in
        and the later watchlist events."""
        said = queue.Queue()
        for event in ("pusher:signin_success", "pusher:error", "pusher_internal:watchlist_events"):
            subscriber.client.connection.bind(event, lambda it, event=event: said.put((event, it)))
        signer = publisher(self.server, **options)
        answer = signer.authenticate_user(subscriber.socket_id, data)
        subscriber.client.connection.send_event("pusher:signin", answer)
        return said

    def assert_signed_in(self, said, data):
        event, answer = said.get(timeout=EVENT_S)
        self.assertEqual((event, json.loads(answer["user_data"])), ("pusher:signin_success", data))

    def test_presence(self):
        ada = self.subscriber(user_data={"user_id": "ada", "user_info": {"name": "\u00c5da"}})
        roster = json.loads(ada.subscribe("presence-room", ADDED, REMOVED))["presence"]
        self.assertEqual(roster, {"ids": ["ada"], "hash": {"ada": {"name": "\u00c5da"}}, "count": 1})
        bob = self.subscriber(user_data={"user_id": 7})
        roster = json.loads(bob.subscribe("presence-room"))["presence"]
        self.assertEqual((roster["ids"], roster["count"]), (["ada", "7"], 2))
        name, event, data = ada.next()
        self.assertEqual((name, event), ("presence-room", ADDED))
        self.assertEqual(json.loads(data), {"user_id": "7", "user_info": None})
        client = publisher(self.server)
        self.assertEqual(client.users_info("presence-room"), {"users": [{"id": "ada"}, {"id": "7"}]})
        counts = client.channels_info("presence-", ["user_count"])
        self.assertEqual(counts, {"channels": {"presence-room": {"user_count": 2}}})
        bob.client.unsubscribe("presence-room")
        self.assertEqual(json.loads(ada.next()[2]), {"user_id": "7"})

    def test_reads(self):
        subscriber = self.subscriber()
        client = publisher(self.server)
        for name in ("reads-1", "reads-2"):
            subscriber.subscribe(name)
        found = client.channels_info("reads-", ["subscription_count"])
        one = {"subscription_count": 1}
        self.assertEqual(found, {"channels": {"reads-1": one, "reads-2": one}})
        self.assertEqual(client.channel_info("reads-1"), {"occupied": True})
        info = client.channel_info("reads-1", ["subscription_count"])
        self.assertEqual(info, {"occupied": True, "subscription_count": 1})
        self.assertEqual(client.channel_info("reads-3"), {"occupied": False})
        for read in (
            lambda: client.users_info("reads-1"),
            lambda: client.channel_info("reads-1", ["user_count"]),
            lambda: client.channels_info(None, ["user_count"]),
        ):
            self.assertRaises(pusher.errors.PusherBadRequest, read)

    def test_a_batch(self):
        subscriber = self.subscriber()
        for name in ("batch-a", "batch-b"):
            subscriber.subscribe(name, "tick")
        client = publisher(self.server)
        answer = client.trigger_batch([
            {"channel": "batch-a", "name": "tick", "data": {"n": 1}, "info": "subscription_count"},
            {"channel": "batch-b", "name": "tick", "data": "two"},
            {"channel": "batch-b", "name": "tick", "data": "", "socket_id": subscriber.socket_id},
        ])
        self.assertEqual(answer, {"batch": [{"subscription_count": 1}, {}, {}]})
        heard = sorted([subscriber.next(), subscriber.next()])
        self.assertEqual(heard, [("batch-a", "tick", '{"n": 1}'), ("batch-b", "tick", "two")])
        event = {"channel": "batch-a", "name": "end", "data": ""}
        self.assertEqual(client.trigger_batch([dict(event) for _ in range(10)]), {})
        many = [dict(event) for _ in range(11)]
        self.assertRaises(pusher.errors.PusherBadRequest, client.trigger_batch, many)

    def test_an_encrypted_channel(self):
        subscriber = self.subscriber()
        client = publisher(self.server, encryption_master_key_base64=MASTER)
        answer = client.authenticate("private-encrypted-a", subscriber.socket_id)
        subscriber.subscribe("private-encrypted-a", "paid", auth=answer["auth"])
        client.trigger("private-encrypted-a", "paid", {"text": "nobody else reads"})
        text = subscriber.next()[2]
        self.assertNotIn("nobody", text)
        sealed = {name: base64.b64decode(value) for name, value in json.loads(text).items()}
        box = nacl.secret.SecretBox(base64.b64decode(answer["shared_secret"]))
        opened = json.loads(box.decrypt(sealed["ciphertext"], sealed["nonce"]))
        self.assertEqual(opened, {"text": "nobody else reads"})

    def test_a_cache_channel(self):
        heard = queue.Queue()
        first, second = self.subscriber(), self.subscriber()
        for subscriber in (first, second):
            subscriber.client.connection.event_handler = lambda *event: heard.put(event)
        client = publisher(self.server)
        first.client.subscribe("cache-a")
        events = [heard.get(timeout=EVENT_S)[0] for _ in range(3)]
        self.assertEqual(sorted(events), sorted([SUBSCRIBED, MISS, COUNT]))
        client.trigger("cache-a", "tick", {"n": 1})
        self.assertEqual(heard.get(timeout=EVENT_S), ("tick", '{"n": 1}', "cache-a"))
        second.client.subscribe("cache-a")
        events = [heard.get(timeout=EVENT_S)[0] for _ in range(4)]
        self.assertEqual(sorted(events), sorted([SUBSCRIBED, "tick", COUNT, COUNT]))
        info = client.channel_info("cache-a", ["cache"])
        ttl = info["cache"].pop("ttl")
        self.assertEqual(info, {"occupied": True, "cache": {"event": "tick", "data": '{"n": 1}'}})
        self.assertTrue(0 < ttl <= 1800, ttl)

    def test_client_events(self):
        one, other = self.subscriber(), self.subscriber(user_data={"user_id": "bob"})
        for subscriber in (one, other):
            subscriber.subscribe("private-chat", "client-typing")
        for data in ({"on": True}, "text"):
            one.client.channel("private-chat").trigger("client-typing", data)
            self.assertEqual(other.next(), ("private-chat", "client-typing", data))
        one.settled()
        self.assertTrue(one.heard.empty())

    def test_subscription_count(self):
        one, other = self.subscriber(), self.subscriber()
        one.subscribe("count-a", COUNT)
        other.subscribe("count-a")
        counts = []
        while 2 not in counts:
            counts.append(json.loads(one.next()[2])["subscription_count"])
        other.client.unsubscribe("count-a")
        self.assertEqual(json.loads(one.next()[2]), {"subscription_count": 1})

    def test_users(self):
        ada = {"id": "py-ada"}
        subscriber, said = self.signed_in(ada)
        self.assert_signed_in(said, ada)
        subscriber.subscribe("#server-to-user-py-ada", "hello", auth="")
        client = publisher(self.server)
        self.assertEqual(client.send_to_user("py-ada", "hello", {"n": 1}), {})
        self.assertEqual(subscriber.next(), ("#server-to-user-py-ada", "hello", '{"n": 1}'))
        # The user is a member by the sign-in alone: the subscription has no `channel_data`.
        auth = client.authenticate("presence-py", subscriber.socket_id)["auth"]
        roster = json.loads(subscriber.subscribe("presence-py", auth=auth))["presence"]
        self.assertEqual(roster["ids"], ["py-ada"])
        stranger = self.subscriber()
        stranger.subscribe("#server-to-user-py-ada", auth="", outcome=REFUSED)
        # The library sends this request to a path without an application id.
        self.assertEqual(client.terminate_user_connections("py-ada"), {})
        connection = subscriber.client.connection
        self.until("the end", lambda: connection.state != "connected")
        stranger.settled()

    def test_a_wrong_sign_in(self):
        subscriber = self.subscriber()
        said = self.sign_in(subscriber, {"id": "ada"}, secret="not-the-secret")
        event, data = said.get(timeout=EVENT_S)
        self.assertEqual((event, data["code"]), ("pusher:error", 4009))
        self.until("the end", lambda: subscriber.client.connection.disconnect_called)

    def test_a_watchlist(self):
        bob, _ = self.signed_in({"id": "py-bob"})
        bob.settled()
        data = {"id": "py-eve", "watchlist": ["py-bob", "py-none"]}
        _, said = self.signed_in(data)
        self.assert_signed_in(said, data)

        def events():
            event, data = said.get(timeout=EVENT_S)
            self.assertEqual(event, "pusher_internal:watchlist_events")
            return sorted((it["name"], it["user_ids"]) for it in json.loads(data)["events"])

        self.assertEqual(events(), [("offline", ["py-none"]), ("online", ["py-bob"])])
        bob.client.disconnect(1)
        self.assertEqual(events(), [("offline", ["py-bob"])])


class Hooks(Waiting):
    def test_webhooks_are_valid_for_the_library(self):
        endpoint = Endpoint()
        self.addCleanup(endpoint.stop)
        hook = f'[[apps.webhooks]]\nurl = "{endpoint.url}"\nallow_private = true\n'
        server = Server(BRIEF + SWITCHES + hook)
        try:
            user = {"user_id": "ada"}
            subscriber = Subscriber(self, server, user_data=user).connected()
            subscriber.subscribe("presence-room")
            subscriber.client.channel("presence-room").trigger("client-typing", {"on": True})
            said = {"name": "client_event", "channel": "presence-room", "event": "client-typing"}
            said |= {"data": '{"on": true}', "socket_id": subscriber.socket_id} | user
            expected = [
                {"name": "channel_occupied", "channel": "presence-room"},
                {"name": "member_added", "channel": "presence-room"} | user,
                said,
            ]
            for event in expected:
                key, signature, body = endpoint.heard.get(timeout=EVENT_S)
                client = publisher(server)
                found = client.validate_webhook(key, signature, body)
                self.assertEqual(found["events"], [event])
                self.assertIsNone(client.validate_webhook(key, signature, body + b" "))
        finally:
            server.stop()
