"""Test helpers: publisher (Pusher's Python library), subscriber (Pysher) and webhook endpoint."""

import http.server
import logging
import queue
import threading

import pusher
import pysher
from support import APP_ID, CONFIG, EVENT_S, KEY, SECRET

# A configuration with a short close timeout: Pysher does not close its socket after the closing
# handshake, so the server waits for this timeout.
BRIEF = "[timeouts]\nclose_ms = 300\n" + CONFIG

# The maximum time to wait for Pysher's thread at disconnect, in seconds. The thread sometimes does
# not end, but it does not keep the test process alive.
JOIN_S = 1

SUBSCRIBED = "pusher_internal:subscription_succeeded"
REFUSED = "pusher:subscription_error"

logging.getLogger("pysher").setLevel(logging.CRITICAL)
logging.getLogger("websocket").setLevel(logging.CRITICAL)


def publisher(server, **options):
    chosen = dict(app_id=APP_ID, key=KEY, secret=SECRET, host=server.host, port=server.port)
    return pusher.Pusher(**{**chosen, "ssl": False, "timeout": EVENT_S, **options})


class Subscriber:
    """A Pysher client that connects at once. `heard` is the queue of the events that its channels
    receive, as (channel, event, data); `answers` has the replies to its subscriptions."""

    def __init__(self, test, server, key=KEY, **options):
        self.test = test
        self.heard = queue.Queue()
        self.answers = queue.Queue()
        # Pysher logs each message at `log_level`; CRITICAL silences it.
        self.client = pysher.Pusher(
            key, secure=False, custom_host=server.host, port=server.port, secret=SECRET,
            log_level=logging.CRITICAL, **options,
        )
        # Pysher registers a channel only after it has sent the subscription, so it may miss a quick
        # reply. Replies to subscriptions are therefore recorded before Pysher handles them.
        handle = self.client.connection.event_handler

        def take(event, data, channel):
            if event in (SUBSCRIBED, REFUSED):
                self.answers.put((event, data, channel))
            handle(event, data, channel)

        self.client.connection.event_handler = take
        self.client.connect()
        test.addCleanup(self.client.disconnect, JOIN_S)

    def connected(self):
        self.test.until("the connection", lambda: self.client.connection.state == "connected")
        return self

    @property
    def socket_id(self):
        return self.client.connection.socket_id

    def subscribe(self, name, *events, auth=None, outcome=SUBSCRIBED):
        channel = self.client.subscribe(name, auth)
        for event in events:
            channel.bind(event, lambda data, event=event: self.heard.put((name, event, data)))
        answer, data, answered = self.answers.get(timeout=EVENT_S)
        self.test.assertEqual((answer, answered), (outcome, name), data)
        return data

    def next(self):
        return self.heard.get(timeout=EVENT_S)

    def settled(self):
        """Waits for the pong to a ping. The server has then handled all earlier messages of this
        connection, and everything that it sent before the pong has arrived."""
        pongs = queue.Queue()
        self.client.connection.bind("pusher:pong", pongs.put)
        self.client.connection.send_event("pusher:ping", "settled")
        pongs.get(timeout=EVENT_S)


class Endpoint:
    """An HTTP server that receives webhooks. `heard` is the queue of their keys, signatures and
    bodies."""

    def __init__(self):
        heard = self.heard = queue.Queue()

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self):
                body = self.rfile.read(int(self.headers["Content-Length"]))
                heard.put((self.headers["X-Pusher-Key"], self.headers["X-Pusher-Signature"], body))
                self.send_response(200)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *_):
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}/hook"

    def stop(self):
        self.server.shutdown()
        self.server.server_close()
