#!/usr/bin/env python3
"""Soak test: detects lost, repeated and reordered events, and memory growth, under steady load.

    tests/soak/soak.py [--seconds N] [--rate N] [--threads N] [--binary PATH]

Publishers and subscribers of several dialects run for the given time. On each channel, STAYING
subscribers keep their connection and PASSING subscribers connect again and again.

Each channel has one publisher, which numbers its events from 1 and waits for the response to each.
A subscriber must receive each event that is published after the server confirms its subscription,
once and in order. Before a subscriber disconnects, it waits for the last event that has a response.
Memory is the VmRSS of the server: its peak in the last quarter of the time may be at most
GROWTH_BYTES above its peak in the second quarter; the first quarter is for warming up. Needs
aiohttp. Exit code 0: all checks passed.
"""

import argparse
import asyncio
import hashlib
import hmac
import itertools
import json
import pathlib
import random
import re
import subprocess
import sys
import tempfile
import time

import aiohttp

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
KEY, SECRET = "app-key", "app-secret"
CHANNELS = ["news", "private-orders", "presence-room", "cache-price"]
CLASSIC = "feed"  # the channel of the Broadcastt dialect
GROUPS = ["a", "b"]
STAYING = 3  # subscribers of each channel that never leave
PASSING = 4  # subscribers of each channel that disconnect and connect again
STAY_S = (0.2, 4.0)  # the range of the time that those stay connected, in seconds
WAIT_S = 30  # the timeout of every wait, in seconds
GROWTH_BYTES = 16 << 20  # the maximum growth of the server's memory
TEXT = "again and again " * 20

CONFIG = f"""
[[apps]]
id = "1"
key = "{KEY}"
secret = "{SECRET}"

[[apps]]
id = "2"
key = "classic-key"
secret = "{SECRET}"
dialect = "broadcastt"

[[routes]]
when = [{{ path = "/echo" }}]
endpoint = "echo"
compression = "dedicated"
[[routes]]
when = [{{ path = "/group/*" }}]
endpoint = "reflect"
reflect.group = "path"
[[routes]]
endpoint = "apps"
compression = "shared"
"""


class Stream:
    """The number of events that one publisher has begun to send, and that have a response."""

    def __init__(self, name):
        self.name = name
        self.begun = 0
        self.answered = 0


class Tally:
    def __init__(self):
        self.published = self.delivered = self.sessions = self.echoes = 0
        self.faults = []

    def fault(self, text):
        self.faults.append(text)
        if len(self.faults) <= 20:
            print("FAULT: " + text, flush=True)


class Follower:
    """One subscription to a stream; checks the numbers of the events that it receives."""

    def __init__(self, stream, tally):
        self.stream, self.tally = stream, tally
        # The subscription may lack events up to this number: their publish began before the
        # subscription was confirmed.
        self.excused = stream.begun
        self.last = None
        tally.sessions += 1

    def take(self, number):
        self.tally.delivered += 1
        name, last = self.stream.name, self.last
        if last is None and number > self.excused + 1:
            self.tally.fault(f"{name}: began with {number}, due from {self.excused + 1}")
        elif last is not None and number > last + 1:
            self.tally.fault(f"{name}: {number} after {last}: a gap")
        elif last is not None and number <= last:
            self.tally.fault(f"{name}: {number} after {last}: again, or out of order")
        self.last = number

    def has(self, number):
        return number <= self.excused or (self.last is not None and self.last >= number)


def signed(key, data, channel, socket_id):
    text = f"{socket_id}:{channel}" + (f":{data}" if data else "")
    return f"{key}:{hmac.new(SECRET.encode(), text.encode(), hashlib.sha256).hexdigest()}"


class Soak:
    def __init__(self, server, session, seconds, rate):
        self.server, self.session, self.rate = server, session, rate
        self.tally = Tally()
        self.end = time.monotonic() + seconds
        self.users = itertools.count(1)
        self.random = random.Random(1)

    def over(self):
        return time.monotonic() >= self.end

    def connect(self, path):
        # Offers permessage-deflate with a window of 15 bits; the route decides whether to use it.
        return self.session.ws_connect(f"ws://{self.server}{path}", compress=15)

    async def pace(self):
        await asyncio.sleep(self.random.uniform(0, 2) / self.rate)

    # --- the Pusher dialects: channels ---

    async def publish(self, app, key, stream):
        """Publishes events by signed HTTP requests, one after the other, until the end."""
        path = f"/apps/{app}/event" if app == "2" else f"/apps/{app}/events"
        while not self.over():
            stream.begun += 1
            data = json.dumps({"n": stream.begun, "text": TEXT})
            channels = {"channels": [stream.name]}
            body = json.dumps({"name": "tick", "data": data, **channels}).encode()
            query = (
                f"auth_key={key}&auth_timestamp={int(time.time())}&auth_version=1.0"
                f"&body_md5={hashlib.md5(body).hexdigest()}"
            )
            text = f"POST\n{path}\n{query}".encode()
            signature = hmac.new(SECRET.encode(), text, hashlib.sha256).hexdigest()
            url = f"http://{self.server}{path}?{query}&auth_signature={signature}"
            headers = {"Content-Type": "application/json"}
            async with self.session.post(url, data=body, headers=headers) as answer:
                if answer.status != 200:
                    raise RuntimeError(f"publish: {answer.status} {await answer.text()}")
                await answer.read()
            stream.answered = stream.begun
            self.tally.published += 1
            await self.pace()

    async def subscribed(self, socket, prefix, key, stream):
        """Subscribes, and returns a follower when the server confirms the subscription."""
        hello = json.loads(await socket.receive_str(timeout=WAIT_S))
        socket_id = json.loads(hello["data"])["socket_id"]
        data = {"channel": stream.name}
        member = ""
        if stream.name.startswith("presence-"):
            data["channel_data"] = member = json.dumps({"user_id": str(next(self.users))})
        if stream.name.startswith(("private-", "presence-")):
            data["auth"] = signed(key, member, stream.name, socket_id)
        await socket.send_str(json.dumps({"event": f"{prefix}:subscribe", "data": data}))
        while True:
            message = json.loads(await socket.receive_str(timeout=WAIT_S))
            if message["event"].endswith(":subscription_succeeded"):
                return Follower(stream, self.tally)

    async def follow_channel(self, prefix, key, stream, stays):
        while not self.over():
            async with self.connect(f"/app/{key}?protocol=7") as socket:
                follower = await self.subscribed(socket, prefix, key, stream)
                cached = stream.name.startswith("cache-")

                def take(text):
                    nonlocal cached
                    message = json.loads(text)
                    if message["event"] == "tick":
                        number = json.loads(message["data"])["n"]
                        # The first event on a cache channel may be the cached one, which was
                        # published before the subscription.
                        if cached and number <= follower.excused:
                            follower.excused = number
                        cached = False
                        follower.take(number)
                    elif message["event"] == f"{prefix}:error":
                        self.tally.fault(f"{stream.name}: {text}")

                await self.follow(socket, stream, follower, take, stays)
            await self.pace()

    async def follow(self, socket, stream, follower, take, stays):
        """Receives messages until the subscriber's time is over, and then until it has the last
        event that has a response at that moment."""
        end = self.end if stays else min(self.end, time.monotonic() + self.random.uniform(*STAY_S))
        until, due = end, None
        while True:
            left = until - time.monotonic()
            try:
                take(await socket.receive_str(timeout=max(left, 0.001)))
            except asyncio.TimeoutError:
                if due is not None:
                    self.tally.fault(f"{stream.name}: {due} did not come, last {follower.last}")
                    return
            if due is None and time.monotonic() >= end:
                due, until = stream.answered, time.monotonic() + WAIT_S
            if due is not None and follower.has(due):
                return

    # --- the endpoints `reflect` and `echo` ---

    async def reflect(self, stream):
        """Publishes to a group as a member. The copy of its own message that the server sends back
        counts as the response."""
        async with self.connect(f"/group/{stream.name}") as socket:
            while not self.over():
                stream.begun += 1
                await socket.send_str(json.dumps({"n": stream.begun, "text": TEXT}))
                back = json.loads(await socket.receive_str(timeout=WAIT_S))
                if back["n"] != stream.begun:
                    self.tally.fault(f"{stream.name}: {back['n']} came back for {stream.begun}")
                stream.answered = stream.begun
                self.tally.published += 1
                await self.pace()

    async def follow_group(self, stream, stays):
        while not self.over():
            # The connection is a member of the group from the handshake response on.
            async with self.connect(f"/group/{stream.name}") as socket:
                follower = Follower(stream, self.tally)
                take = lambda text, follower=follower: follower.take(json.loads(text)["n"])
                await self.follow(socket, stream, follower, take, stays)
            await self.pace()

    async def echo(self):
        while not self.over():
            async with self.connect("/echo") as socket:
                for number in range(self.random.randrange(1, 100)):
                    text = f"{number} {TEXT * self.random.randrange(20)}"
                    await socket.send_str(text)
                    if await socket.receive_str(timeout=WAIT_S) != text:
                        self.tally.fault(f"echo {number} has changed")
                    self.tally.echoes += 1
                    await self.pace()
                    if self.over():
                        break

    def tasks(self):
        for name in [*CHANNELS, CLASSIC]:
            classic = name == CLASSIC
            app, key, prefix = ("2", "classic-key", "broadcastt") if classic else ("1", KEY, "pusher")
            stream = Stream(name)
            yield self.publish(app, key, stream)
            for number in range(STAYING + PASSING):
                yield self.follow_channel(prefix, key, stream, number < STAYING)
        for name in GROUPS:
            stream = Stream(name)
            yield self.reflect(stream)
            for number in range(STAYING + PASSING):
                yield self.follow_group(stream, number < STAYING)
        for _ in range(4):
            yield self.echo()


def resident(process):
    status = pathlib.Path(f"/proc/{process.pid}/status").read_text()
    return int(re.search(r"^VmRSS:\s*(\d+) kB$", status, re.M)[1]) * 1024


async def weigh(process, seconds, samples):
    began = time.monotonic()
    while True:
        samples.append(((time.monotonic() - began) / seconds, resident(process)))
        await asyncio.sleep(0.25)


async def run(process, server, seconds, rate):
    samples = []
    limits = aiohttp.TCPConnector(limit=0)
    timeout = aiohttp.ClientTimeout(total=WAIT_S)
    async with aiohttp.ClientSession(connector=limits, timeout=timeout) as session:
        soak = Soak(server, session, seconds, rate)
        scale = asyncio.create_task(weigh(process, seconds, samples))
        try:
            async with asyncio.TaskGroup() as group:
                for task in soak.tasks():
                    group.create_task(task)
        finally:
            scale.cancel()
    return soak.tally, samples


def judge(tally, samples, seconds, rate):
    peak = lambda low, high: max((size for at, size in samples if low <= at < high), default=0)
    before, after = peak(0.25, 0.5), peak(0.75, 1)
    print(
        f"soak: {tally.published} published, {tally.delivered} delivered in {tally.sessions}"
        f" subscriptions, {tally.echoes} echoes; {before / 2**20:.1f} MiB in the second quarter,"
        f" {after / 2**20:.1f} MiB in the last"
    )
    if after - before > GROWTH_BYTES:
        tally.fault(f"memory has grown by {(after - before) >> 10} KiB")
    # A run with too few events or subscriptions proves nothing, so it fails.
    for what, count, least in [
        ("published", tally.published, seconds * rate / 4),
        ("delivered", tally.delivered, seconds * rate),
        ("subscriptions", tally.sessions, seconds / 2),
    ]:
        if count < least:
            tally.fault(f"only {count} {what}, expected {least:.0f} at least")
    return not tally.faults


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--seconds", type=float, default=120)
    parser.add_argument("--rate", type=float, default=10, help="events a second of each publisher")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--binary", default=str(ROOT / "target/release/polycast"))
    arguments = parser.parse_args()
    began = time.monotonic()
    with tempfile.NamedTemporaryFile("w", suffix=".toml") as file:
        file.write(CONFIG)
        file.flush()
        command = [arguments.binary, "--config", file.name, "--listen", "127.0.0.1:0", "--no-pin"]
        command += ["--threads", str(arguments.threads), "--log-level", "warn"]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        try:
            found = re.search(r"ws://(\S+)", process.stdout.readline())
            if not found:
                sys.exit("the server did not start")
            parts = (arguments.seconds, arguments.rate)
            tally, samples = asyncio.run(run(process, found[1], *parts))
            fine = judge(tally, samples, *parts)
            process.terminate()
            code = process.wait(WAIT_S)
            if code != 0:
                print(f"FAULT: the server ended with exit code {code}")
                fine = False
        finally:
            process.kill()
            process.wait()
    print(f"Ran 1 test in {time.monotonic() - began:.0f} s")
    return 0 if fine else 1


if __name__ == "__main__":
    sys.exit(main())
