"""The attacks H1 to H10 of docs/security.md: one stranger stops a core or empties the memory."""

import http.server
import itertools
import json
import os
import re
import ssl
import subprocess
import time
import urllib.parse

import support
from support import (
    APP_PATH, FIXTURES, KEYS, MIB, Client, Responses, ask, config, connect, frame, handshake,
    header, message, publish, request, signed, token,
)

GUARD = (
    '[[guards]]\nname = "g"\nissuer = "https://auth.example.com"\naudience = "api"\n'
    "keys = [{ kid = \"e\", pem = '''%s''' }, { kid = \"r\", pem = '''%s''' }]\n"
    % ((KEYS / "p384.pub").read_text(), (KEYS / "rsa.pub").read_text())
)


def h1(run):
    """Invalid tokens, 200 kB of them at once on each connection, half of them for any path by
    POST. Each costs a signature. Bound: three refused tokens close a connection, 32 a second from
    one address are answered 429. Without it one such burst stalled the core for 0.3 to 5 s."""
    route = '[[routes]]\nwhen = [{ path = "/guarded" }]\nguarded = { g = [] }\nendpoint = "echo"\n'
    run.start(config("", GUARD + route))
    get = lambda text: request("GET", "/guarded", b"", f"Authorization: Bearer {text}")
    kind = "Content-Type: application/x-challenge-response\r\nContent-Length: 0"
    post = lambda text: request("POST", "/any", b"", kind, f"Authorization: Bearer {text}")
    keys = [("ES384", "e"), ("RS256", "r")]

    # Made before the attack, so that the attackers are quick beside other programs.
    scripts = [b"".join([get, post][n % 2](token(*keys[at % 2])) for at in range(200))
               for n in range(100)]
    with run.attack():
        sources = [f"127.0.1.{n}" for n in range(1, 5)]
        done = run.join(run.flood(lambda n: [scripts[n % len(scripts)]], sockets=16, sources=sources,
                                  stays_s=0.2))
    run.sent = f"{done['connections']} connections of 200 tokens, {done['bytes'] / MIB:.0f} MiB"
    run.moved("guard_bad_token", "guard_failures_closed", "guard_throttled")


# --- Zenith ---

ZENITH = (
    "[[zenith.services]]\ntoken = \"SERVICE\"\n"
    '[[zenith.tokens]]\ntoken = "T"\nuser = "ada"\npassword = "right"\n'
    '[[zenith.topics]]\ncontroller = "Free"\nkind = "Tick"\nretain = "none"\n'
)
ZENITH_ROUTE = '[[routes]]\nwhen = [{ path = "/Zenith" }, { path = "/Zenith/*" }]\n' \
    'endpoint = "zenith"\n'


def call(number, data="", topic="Query"):
    text = json.dumps({"Controller": "Market", "Topic": topic, "TransactionID": number,
                       "Data": data})
    return frame(text)


def backend(pipe, port, answers):
    """A Zenith back end that serves `Market`, reads promptly, and answers each call or none.
    Sends True when it has registered, and False if the server closes it."""
    client = Client(port, "/Zenith", "Authorization: Bearer SERVICE", timeout=60)
    client.send('{"Action":"Register","TransactionID":1,"Data":{"Controllers":["Market"]}}')
    client.until('"TransactionID":1')
    pipe.send(True)
    try:
        while True:
            opcode, payload = client.receive()
            if opcode == 9:
                client.stream.sendall(frame(payload, 10))
            elif opcode == 8:
                break
            found = re.search(rb'"Topic":"(\w+)".*?"TransactionID":(\d+)', payload[:300])
            if found and answers:
                number = int(found[2])
                client.send(json.dumps({"Controller": "Market", "Topic": found[1].decode(),
                                        "TransactionID": number, "Data": number}))
    except (EOFError, OSError):
        pass
    pipe.send(False)


def h2(run):
    """Calls of 900 kB, twelve at once on each of four anonymous connections, to a back end that
    reads promptly. Bound: each client has a share of the back end's queue, and calls beyond it
    are answered `Limited`. Without it the back end was closed and all clients lost it."""
    run.start(config("", ZENITH_ROUTE + ZENITH, memory_mib=256))
    pipe, _ = run.helper(backend, run.port, True)
    patient = Client(run.port, "/Zenith")
    large = call(1, "x" * 900_000)
    script = lambda n: itertools.chain([handshake("/Zenith")], itertools.repeat(large))
    with run.attack():
        pipes = [run.flood(script, sockets=4)]
        served = 0
        while time.monotonic() < run.until:
            patient.stream.sendall(call(7, topic="Patient"))
            answer = patient.until('"TransactionID":7')
            served += b'"Data":' in answer and b"Error" not in answer
            if b"Error" in answer:
                run.check(b"Limited" in answer, f"another client was answered {answer[:200]!r}")
                patient.until('"TransactionID":7')
            time.sleep(0.05)
        done = run.join(*pipes)
    # A call of 900 kB is one message, and each connection has one in turn.
    run.limit_ms = 120
    run.check(not pipe.poll(), "the back end was closed")
    run.check(served > 0, "no call of another client was answered")
    run.sent = f"{done['items']} calls, {done['bytes'] / MIB:.0f} MiB"
    run.note = f"{served} calls of another client were answered"
    run.moved("backend_calls_refused")


def h3(run):
    """Connections that hold much: unfinished messages of 15 MiB, replies that nobody reads, and
    bodies for a path that does not exist. Bound: `memory_bytes`, and the head of a request decides
    whether its body is read. Without it 60 strangers held 1944 MiB."""
    route = '[[routes]]\nwhen = [{ path = "/echo" }]\nendpoint = "echo"\nmessage_bytes = "16MiB"\n'
    run.start(config("", route))
    start = handshake("/echo")
    unfinished = start + header(15 * MIB, 2) + bytes(15 * MIB - 1)
    unread = start + (header(4 * MIB, 2) + bytes(4 * MIB)) * 2
    body = request("POST", "/nowhere", bytes(MIB - 1024))[:-1]
    with run.attack():
        pipes = [
            run.flood(lambda n: [unfinished], sockets=40),
            run.flood(lambda n: [unread], sockets=40, reads=False, narrow=True),
            run.flood(lambda n: [body], sockets=100, opens_per_s=200),
        ]
        done = run.join(*pipes)
    run.sent = f"{done['connections']} connections, {done['bytes'] / MIB:.0f} MiB"
    run.check(run.counters()["memory_read_paused"] + run.counters()["memory_ended"] > 0,
              "neither memory_read_paused nor memory_ended has moved")
    run.note = f"memory_ended {run.counters()['memory_ended']}"
    # Without the bound 1101 MiB were resident after 3 s, and more with each second. When freed memory
    # stayed with the allocator for a second, it was 430 MiB.
    # Freed memory is returned meanwhile. Without the bound it was 0.6 to 2.5 s, and the counters and
    # the memory show it as well.
    run.limit_ms = 200
    run.moved("memory_read_paused", "http_bodies_unread")


def h4(run):
    """Messages of one byte to a group with 24 members that do not read. Bound: each queued frame
    counts 64 bytes beside its payload. Without it 330 000 frames waited for each member, and
    moving them took 95 ms of each turn."""
    run.start(config("", '[[routes]]\nwhen = [{ path = "/group" }]\nendpoint = "reflect"\n'
                     "reflect.exclude_sender = true\n"))
    many = frame("x") * 10_000
    sender = lambda n: itertools.chain([handshake("/group")], itertools.repeat(many))
    with run.attack():
        pipes = [
            run.flood(lambda n: [handshake("/group")], sockets=24, reads=False, narrow=True,
                      stays_s=0.8),
            run.flood(sender),
        ]
        done = run.join(*pipes)
    run.sent = f"{done['items'] * 10_000} messages, {done['connections'] - 1} slow readers"
    run.moved("slow_consumer_closed")


def h5(run):
    """Tiny events on very many cache channels. Bound: a sweep visits only the events that are due,
    and each counts with the tables that it needs. Without it 300 000 took 21 % of a core while
    nothing happened."""
    run.start(config('limits.cached_bytes = "160MiB"', memory_mib=512))
    requests = [publish([f"cache-{n}-{at}" for at in range(100)], "x") for n in range(2500)]
    with run.attack():
        # The application itself publishes, so this sender waits for the responses.
        done = run.join(run.flood(lambda n: [b"".join(requests)], needle=b"HTTP/1.1 200"))
    before, began = run.server.cpu_s(), time.monotonic()
    time.sleep(1.5)
    part = (run.server.cpu_s() - before) / (time.monotonic() - began)
    kept = run.counters()["kept_bytes"]
    run.sent = f"{done['needles'] * 100} events"
    run.note = f"then {part:.1%} of a core, {kept / MIB:.0f} MiB kept"
    run.check(done["needles"] == len(requests), f"{done['needles']} requests were answered")
    # The healthy client alone needs 1 to 3 %. Without the bound it would be 14 % and more.
    run.check(part < 0.1, f"{part:.1%} of a core is used afterwards")
    run.moved("kept_bytes", "kept_dropped")


SPELLINGS = [
    "/%61dmin/x", "//admin/x", "/./admin/x", "/a/../admin/x", "/admin%2Fx", "/admin%2fx",
    "/public/%2e%2e/admin/x", "/admin;a=b/x", "/admin\\x", "/admin%5cx", "/admin%00/x",
    "/public/..;/admin/x", "/public/..%2fadmin/x", "/%2561dmin/../admin/x", "/a//../admin/x",
    "/admin/./x", "/admin/x/../y", "/.//admin//x", "/%2e/admin/x", "/a/%2E%2E/%61dmin/x",
]


def upstream(pipe):
    """An upstream server that accepts each WebSocket and reports the path that it was asked for."""
    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            pipe.send(self.path)
            # The handshake's answer is not needed: the attack is over when the path arrives.
            self.send_error(404)

        def log_message(self, *_):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    pipe.send(server.server_port)
    server.serve_forever()


def h6(run):
    """Other spellings of a guarded path of a proxy. Bound: routes match the normal form, which is
    also what is forwarded; a path that servers read differently is answered 400. Without it each of
    these reached the upstream server without a token."""
    pipe, port = run.helper(upstream)
    proxy = f'endpoint = "proxy"\nproxy.upstreams = "ws://127.0.0.1:{port}"\n'
    admin = '[[routes]]\nwhen = [{ path = "/admin/*" }]\n'
    own = '[[routes]]\nwhen = [{ path = "/own/*" }]\n'
    other = "".join(f'[[routes]]\nwhen = [{{ path = "{path}" }}]\nendpoint = "{endpoint}"\n'
                    for path, endpoint in
                    [("/metrics", "metrics"), ("/app/*", "apps"), ("/apps/*", "apps")])
    run.start(config("", GUARD + f"{admin}guarded = {{ g = [] }}\n{proxy}{admin}"
                     f'endpoint = "reject"\n{other}[[routes]]\n{proxy}'))
    statuses, reached = set(), []
    with run.attack():
        sent = 0
        while time.monotonic() < run.until - 1:
            for path in SPELLINGS:
                statuses.add(ask(run.port, handshake(path))[0])
                sent += 1
                while pipe.poll():
                    reached.append(pipe.recv())
        for _ in range(20):
            ask(run.port, handshake("/public//x"))
        while pipe.poll(0.2):
            reached.append(pipe.recv())
    run.check(statuses <= {400, 401, 403, 404}, f"statuses {statuses}")
    inside = {path for path in reached if "admin" in urllib.parse.unquote(path).lower()}
    run.check(not inside, f"the upstream server was asked for {inside}")
    run.check(reached == ["/public/x"] * 20, f"the upstream server was asked for {set(reached)}")
    run.sent = f"{sent} requests, {len(SPELLINGS)} spellings"
    run.note = f"{len(inside)} reached the upstream server; statuses {sorted(statuses)}"
    run.moved("paths_refused")


def h7(run):
    """150 clients that name the same 9000 addresses, and one more before each epoch. Bound: the
    work of an epoch follows what has changed, and addresses of a core are limited. Without it each
    epoch took 0.3 to 1.3 s."""
    bearer = "0123456789abcdef"
    run.start(config(
        f'zilliqa.publish_token = "{bearer}"\nzilliqa.addresses_per_core = 1000000\n'
        'zilliqa.message_bytes = "1MiB"\n',
        '[[routes]]\nwhen = [{ path = "/zil" }, { path = "/epochs" }]\nendpoint = "zilliqa"\n',
        memory_mib=512,
    ))
    address = lambda number: f"0x{number:040x}"
    query = lambda numbers: frame(json.dumps(
        {"query": "EventLog", "addresses": [address(number) for number in numbers]}))
    # The common addresses are spread, as those of contracts are.
    common = query([number * 0x9E3779B97F4A7C15F39CC0605CEDC834 % 2**160
                    for number in range(1, 9001)])

    # The common addresses come first, and take their time: one query is one document of 400 kB.
    # Afterwards the healthy client is measured, while 150 queries of 100 bytes and epochs come.
    changes = support.FORK.Event()

    def script(n):
        yield handshake("/zil") + common
        while not changes.is_set():
            yield b""
        for number in range(990):
            yield query([(n + 1) * 100_000 + number])
            time.sleep(0.0005)

    with run.attack():
        run.until += 2 * support.SETTLE_S
        run.flood(script, sockets=150)
        attackers, _ = run.children[-1]
        while time.monotonic() < run.until:
            counters = run.counters()
            # The second is the input that waits to be processed, as of a quarter second ago.
            if (counters["received_bytes"] > 150 * len(common)
                    and counters["memory_input_bytes"] < MIB):
                break
            time.sleep(0.1)
        time.sleep(0.5)
        changes.set()
        took = []
        run.began = time.monotonic()
        run.until = run.began + run.attack_s
        with connect(run.port) as stream:
            responses = Responses()
            for number in range(1, 1000):
                if time.monotonic() > run.until:
                    break
                block = {"TxBlock": {"header": {"BlockNum": str(number)}}, "TxHashes": [],
                         "Transactions": []}
                began = time.monotonic()
                stream.sendall(request("POST", "/epochs", json.dumps(block).encode(),
                                       f"Authorization: Bearer {bearer}"))
                while not (answered := list(responses)):
                    responses.add(stream.recv(1 << 16))
                run.check(answered[0][0] == 200, f"an epoch was answered {answered[0]}")
                took.append(time.monotonic() - began)
                time.sleep(0.1)
        attackers.kill()
    run.sent = f"150 clients, {150 * len(common) / MIB:.0f} MiB, {len(took)} epochs"
    run.note = f"longest epoch {max(took) * 1000:.0f} ms"
    run.moved("addresses_refused")


def webhook_receiver(pipe):
    """An endpoint of webhooks that reports the events that it receives."""
    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self):
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            for event in body["events"]:
                if not event["channel"].startswith("made-up"):
                    pipe.send((event["name"], event["channel"]))
            self.send_response(200)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    pipe.send(server.server_port)
    server.serve_forever()


def h8(run):
    """One connection subscribes to invented channels and leaves them, so that the application's
    webhooks have no room. Bound: subscriptions a second; occupied and vacated that both wait cancel
    each other; shares of the queue. Without it no other webhook arrived for 33 s."""
    pipe, port = run.helper(webhook_receiver)
    hook = f'[[apps.webhooks]]\nurl = "http://127.0.0.1:{port}/"\nallow_private = true\n' \
        "batch = true\n"
    run.start(config("", "", hook))
    pair = lambda name: (message("pusher:subscribe", channel=name)
                         + message("pusher:unsubscribe", channel=name))
    script = lambda n: itertools.chain([handshake(APP_PATH)], (
        b"".join(pair(f"made-up-{n}-{round}-{at}") for at in range(200))
        for round in itertools.count()))
    arrived, subscribed, waits = set(), {}, []
    with run.attack():
        pipes = [run.flood(script, sockets=4)]
        client = Client(run.port, APP_PATH)
        for number in range(5):
            time.sleep(0.4)
            client.subscribe(f"real-{number}")
            subscribed[f"real-{number}"] = time.monotonic()
        end = time.monotonic() + support.SETTLE_S
        while len(arrived) < 5 and time.monotonic() < end:
            if pipe.poll(0.1):
                name, channel = pipe.recv()
                if name == "channel_occupied" and channel in subscribed:
                    arrived.add(channel)
                    waits.append(time.monotonic() - subscribed[channel])
        done = run.join(*pipes)
    run.check(len(arrived) == 5, f"{len(arrived)} of 5 webhooks arrived")
    run.sent = f"{done['items'] * 200} subscriptions, {done['bytes'] / MIB:.0f} MiB"
    dropped = run.counters()["hooks_dropped"]
    run.note = f"5 webhooks within {max(waits, default=0):.1f} s; hooks_dropped {dropped}"
    run.moved("subscriptions_refused", "hooks_cancelled")


def h9(run):
    """An operator starts with `--listen` a file whose only listener has TLS and origins. Bound: the
    other settings of that listener are kept. Without it plain HTTP and any origin were served."""
    trusted = ssl.create_default_context(cafile=str(FIXTURES / "ca.pem"))
    files = f'cert = "{FIXTURES / "localhost.pem"}", key = "{FIXTURES / "localhost.key"}"'
    listener = '[[listeners]]\naddress = "127.0.0.1:1"\n' \
        'allowed_origins = ["https://good.example"]\n' \
        f"[listeners.tls]\ncertificates = [{{ {files} }}]\n"
    run.start(config("", listener), tls=trusted, arguments=["--listen", "127.0.0.1:0"])
    statuses = set()
    with run.attack():
        sent = 0
        while time.monotonic() < run.until - 1.5:
            sent += 2
            with connect(run.port) as stream:
                stream.sendall(request("GET", "/live"))
                got = stream.recv(4096)
                run.check(not got.startswith(b"HTTP/1.1 200"), "plain HTTP was served")
            evil = Client(run.port, APP_PATH, "Origin: https://evil.example", tls=trusted)
            statuses.add(evil.status)
            evil.close()
        good = Client(run.port, APP_PATH, "Origin: https://good.example", tls=trusted)
    run.check(statuses == {403}, f"another origin was answered {statuses}")
    run.check(good.status == 101, f"the right origin was answered {good.status}")
    two = listener + listener.replace("good", "other").replace(":1\"", ":2\"")
    path = os.path.join(run.server.folder.name, "two.toml")
    with open(path, "w") as file:
        file.write(config("", two))
    command = [run.binary, "--config", path, "--listen", "127.0.0.1:0"]
    result = subprocess.run(command, capture_output=True, text=True, timeout=10)
    run.check(result.returncode == 2, f"two listeners: exit code {result.returncode}")
    run.sent = f"{sent} requests"
    run.moved("tls_plain", "origins_refused")


def h10(run):
    """Invented channels without number. Bound: channels of an application, by who asks;
    subscriptions of a connection. Without it 11 strangers took the list of channels from everybody,
    and the core's tables stayed large."""
    run.start(config("", "", "[apps.limits]\nchannels = 20000\n"))
    subscribe = lambda n: b"".join(
        message("pusher:subscribe", channel=f"made-up-{n}-{at}") for at in range(1000))
    with run.attack():
        run.until += 2 * support.SETTLE_S
        run.flood(lambda n: [handshake(APP_PATH) + subscribe(n)], sockets=60)
        attackers, _ = run.children[-1]
        # The channels that may be there are there when the first one is refused.
        while time.monotonic() < run.until and not run.counters()["refused_channels"]:
            time.sleep(0.1)
        began = time.monotonic()
        status, body = ask(run.port, signed("GET", "/channels"))
        took = time.monotonic() - began
        own = Client(run.port, APP_PATH)
        own.subscribe("private-own")
        time.sleep(max(run.began + run.attack_s - time.monotonic(), 0))
        attackers.kill()
    run.check(status == 200, f"the list of channels was answered {status}")
    listed = len(json.loads(body)["channels"]) if status == 200 else 0
    run.check(10_000 < listed <= 20_000, f"there were {listed} channels")
    left = []
    settled = time.monotonic() + support.SETTLE_S
    while len(left) != 2 and time.monotonic() < settled:
        time.sleep(0.2)
        began = time.monotonic()
        left = json.loads(ask(run.port, signed("GET", "/channels"))[1])["channels"]
        after = time.monotonic() - began
    run.check(len(left) == 2, "channels stay after their last subscriber")
    # Without the bound it took up to 480 ms for ever.
    run.check(after < 0.1, f"a list took {after * 1000:.0f} ms afterwards")
    run.sent = "up to 60000 subscriptions on 60 connections"
    run.note = f"{listed} channels listed in {took * 1000:.0f} ms, afterwards {after * 1000:.1f} ms"
    run.moved("refused_channels")


ALL = [h1, h2, h3, h4, h5, h6, h7, h8, h9, h10]
