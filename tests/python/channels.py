"""Pusher's Python library and Pysher, set up for a server of the tests."""

import http.server
import logging
import queue
import threading

import pusher
import pysher
from support import APP_ID, CONFIG, EVENT_S, KEY, SECRET

# Pysher does not close its socket after the closing handshake; the server waits this long for it.
BRIEF = "[timeouts]\nclose_ms = 300\n" + CONFIG

# Its thread sometimes does not end after it was asked to; it does not keep the tests alive.
JOIN_S = 1

SUBSCRIBED = "pusher_internal:subscription_succeeded"
REFUSED = "pusher:subscription_error"

logging.getLogger("pysher").setLevel(logging.CRITICAL)
logging.getLogger("websocket").setLevel(logging.CRITICAL)


def publisher(server, **options):
    chosen = dict(app_id=APP_ID, key=KEY, secret=SECRET, host=server.host, port=server.port)
    return pusher.Pusher(**{**chosen, "ssl": False, "timeout": EVENT_S, **options})


class Subscriber:
    """Pysher, connected; what its channels hear is in `heard`."""

    def __init__(self, test, server, key=KEY, **options):
        self.test = test
        self.heard = queue.Queue()
        self.answers = queue.Queue()
        # The library logs each message, at the level it is given.
        self.client = pysher.Pusher(
            key, secure=False, custom_host=server.host, port=server.port, secret=SECRET,
            log_level=logging.CRITICAL, **options,
        )
        # The library knows a channel only after it has sent the subscription, so that it may miss
        # a quick answer: these are taken on their way to it.
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
        """Waits until the server has handled what was sent, and has sent what was due."""
        pongs = queue.Queue()
        self.client.connection.bind("pusher:pong", pongs.put)
        self.client.connection.send_event("pusher:ping", "settled")
        pongs.get(timeout=EVENT_S)


class Endpoint:
    """An HTTP server for webhooks; key, signature and body of each are in `heard`."""

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
