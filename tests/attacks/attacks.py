#!/usr/bin/env python3
"""Attacks the server with the findings of docs/security.md and checks that a client is served.

    tests/attacks/attacks.py [--binary PATH] [NAME...]

Prints one row for each attack: what was sent; the 99th percentile of the healthy client's latency
before and during the attack, and the longest latency; how many times other programs stretched the
time of the server (x); the largest memory of the server beside its account; and the counters of the
bound. Exit code 1: an assertion has failed. Needs only Python's standard library.
"""

import argparse
import os
import sys
import time
import traceback

import high
import medium
import rush
import support

ATTACKS = {function.__name__: function for function in [*high.ALL, *medium.ALL, *rush.ALL]}
# Another program can keep a core from the server for a fraction of a second, which is the 99th
# percentile of three seconds, or from the attackers for longer. An attack is repeated if a busy
# machine explains all its faults; one whose bound is missing fails each time.
ATTEMPTS = len(support.ATTACK_S)
ROW = "{:<5} {:<52} {:>8} {:>8} {:>8} {:>4} {:>5}/{:<5} {}"


def one(name, binary, attempt):
    """Runs one attack and returns its run."""
    run = support.Run(name, binary, attempt)
    try:
        ATTACKS[name](run)
        run.finish()
    except Exception:
        run.faults.append(traceback.format_exc())
    finally:
        try:
            if run.faults and run.server is not None:
                run.log = run.server.log.read_text()[-2000:]
        except OSError:
            pass
        run.end()
    return run


def row(run):
    counters = ", ".join(f"{name} +{run.after[name]}" for name in run.named)
    text = "; ".join(part for part in (counters, run.note) if part)
    numbers = (f"{value:.1f}" for value in (*run.p99, run.longest))
    stretch = f"{run.stretch:.1f}"
    mib = support.MIB
    sizes = (run.peak // mib, run.memory // mib)
    return ROW.format(run.name, run.sent, *numbers, stretch, *sizes, text)


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--binary", default=str(support.ROOT / "target/release/polycast"))
    parser.add_argument("names", nargs="*", metavar="NAME", help=" ".join(ATTACKS))
    arguments = parser.parse_args()
    unknown = set(arguments.names) - set(ATTACKS)
    if unknown:
        parser.error(f"no attack is called {', '.join(sorted(unknown))}")
    support.raise_files()
    os.sched_setaffinity(0, {support.CLIENT_CORE})
    began, failed = time.monotonic(), []
    names = arguments.names or list(ATTACKS)
    print(ROW.format("name", "sent", "before", "p99 ms", "max", "x", "MiB", "of", "counters"))
    for name in names:
        for attempt in range(ATTEMPTS):
            run = one(name, arguments.binary, attempt)
            print(row(run), flush=True)
            only_busy = run.faults and run.faults == run.busy_faults
            if not only_busy or attempt == ATTEMPTS - 1:
                break
            print(f"{name} is repeated: {'; '.join(run.faults)}", flush=True)
        for fault in run.faults:
            print(f"FAULT: {name}: {fault}", flush=True)
        if run.faults:
            print(run.log)
            failed.append(name)
    print(f"Ran {len(names)} tests in {time.monotonic() - began:.0f} s")
    if failed:
        print(f"failed: {' '.join(failed)}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
