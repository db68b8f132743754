"""38 000 clients that connect at the same time to two reactors, and subscribe."""

import collections
import errno
import os
import re
import select
import socket
import subprocess
import time

import support
from support import APP_PATH, config, handshake, message, publish

CLIENTS = 38_000
# Each process of clients has about as many sockets, and an address of its own: an address has
# 28 000 ports by default.
PROCESSES = 3
# Files of a reactor beside connections: the listener, the ring, the reserve for refusals.
SPARE = 1000
# The longest time until all have subscribed, and until each has the event.
CONNECT_S = 40
DELIVER_S = 15
# The clients that begin to connect before the answers to others are read.
STEP = 200


def clients(port, count, source, pipe):
    """Connects `count` clients from one address without waiting for each other. Sends how many have
    subscribed, waits for the parent, and sends how many have received the event. Ends when the
    parent says so."""
    os.sched_setaffinity(0, support.CORES)
    poll = select.epoll()
    streams, received = {}, collections.defaultdict(bytes)
    hello = handshake(APP_PATH) + message("pusher:subscribe", channel="rush")
    subscribed = delivered = ended = 0
    end = time.monotonic() + CONNECT_S

    def open_one():
        stream = socket.socket()
        stream.setsockopt(socket.IPPROTO_IP, getattr(socket, "IP_BIND_ADDRESS_NO_PORT", 24), 1)
        stream.bind((source, 0))
        stream.setblocking(False)
        code = stream.connect_ex(("127.0.0.1", port))
        if code not in (0, errno.EINPROGRESS):
            raise OSError(code, os.strerror(code))
        streams[stream.fileno()] = stream
        poll.register(stream, select.EPOLLOUT)

    def serve(timeout):
        nonlocal subscribed, delivered, ended
        for number, events in poll.poll(timeout, 1024):
            stream = streams[number]
            try:
                if events & select.EPOLLOUT:
                    stream.sendall(hello)
                    poll.modify(stream, select.EPOLLIN)
                    continue
                got = stream.recv(1 << 14)
            except OSError:
                got = b""
            if not got:
                poll.unregister(stream)
                ended += 1
                continue
            if b"ping" in got and number in received:
                support.receive_all(stream)
            received[number] += got
            if b"subscription_succeeded" in received[number]:
                subscribed += 1
                received[number] = b""
            elif b'"rush-event"' in received[number]:
                delivered += received[number].count(b'"rush-event"')
                received[number] = b""

    opened = 0
    while subscribed + ended < count and time.monotonic() < end:
        for _ in range(min(STEP, count - opened)):
            open_one()
            opened += 1
        serve(0 if opened < count else 0.1)
    pipe.send((opened, subscribed, ended))
    pipe.recv()
    end = time.monotonic() + DELIVER_S
    while delivered < subscribed and time.monotonic() < end:
        serve(0.1)
    pipe.send((delivered, ended))
    pipe.recv()


def rush(run):
    """All clients connect at once, and each sends its handshake and a subscription together.
    Bound: unfinished handshakes wait in the backlog, and a reactor without room leaves connections
    to the other. None may be refused, each must be subscribed, and each must receive one event."""
    files = support.raise_files()
    doctor = subprocess.run([run.binary, "doctor"], capture_output=True, text=True, timeout=20)
    found = re.search(r"^open files +(\d+)", doctor.stdout, re.M)
    # Each reactor has a table of so many connections.
    possible = 2 * (min(files, int(found[1]) if found else files) - SPARE)
    available = re.search(r"MemAvailable: +(\d+)", open("/proc/meminfo").read())
    # A client needs about 5 KiB of the server, and as much of the kernel at both ends.
    possible = min(possible, int(available[1]) * 1024 // 32_768)
    count = min(CLIENTS, possible, PROCESSES * (files - SPARE))
    cores = ",".join(str(core) for core in support.CORES)
    text = config(f"limits.connections = {count + 1900}", memory_mib=512)
    run.start(text, threads=2, cores=cores)
    # All clients together take the two cores for seconds, so that only a standstill is a fault.
    run.limit_ms, run.ratio = 5000, 5
    pipes = []
    with run.attack():
        for number in range(PROCESSES):
            share = count // PROCESSES + (number < count % PROCESSES)
            pipe, child = support.FORK.Pipe()
            source = f"127.0.2.{number + 1}"
            process = support.FORK.Process(target=clients, args=(run.port, share, source, child))
            process.start()
            child.close()
            run.children.append((process, pipe))
            pipes.append(pipe)
        results = [pipe.recv() if pipe.poll(CONNECT_S + 10) else (0, 0, 0) for pipe in pipes]
        took = time.monotonic() - run.began
        opened, subscribed, ended = (sum(column) for column in zip(*results))
        status, _ = support.ask(run.port, publish(["rush"], "x", "rush-event"))
        run.check(status == 200, f"the event was answered {status}")
        began = time.monotonic()
        for pipe in pipes:
            pipe.send("published")
        results = [pipe.recv() if pipe.poll(DELIVER_S + 10) else (0, 0) for pipe in pipes]
        delivered = sum(result[0] for result in results)
        spread = time.monotonic() - began
    run.check(subscribed == count, f"{subscribed} of {count} clients are subscribed; {ended} ended")
    run.check(delivered == subscribed, f"{delivered} of {subscribed} received the event")
    counters = run.counters()
    run.check(counters["refused_handshake"] == 0, f"{counters['refused_handshake']} were refused")
    for pipe in pipes:
        pipe.send("end")
    run.sent = f"{count} clients at once"
    run.note = f"{subscribed} subscribed in {took:.1f} s; an event for all took {spread:.1f} s; " \
        f"refused_handshake {counters['refused_handshake']}, accept_no_slot " \
        f"{counters['accept_no_slot']}, accepted_for_others {counters['accepted_for_others']}"
    run.moved("accepted", "upgrades", "deliveries")


ALL = [rush]
