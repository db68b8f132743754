#!/usr/bin/env python3
"""Runs the Autobahn|Testsuite against polycast as a server, client and proxy; checks the results.

    tests/autobahn/run.py [--full] [--threads N] [--binary PATH] [SUITE...]

SUITE is one of
    core      RFC 6455: sections 1 to 7 and 10
    limits    section 9: large messages and many fragments
    deflate   RFC 7692: sections 12 and 13; without --full only the messages of up to 8 KiB
    client    polycast's client role against the fuzzing server: core, and deflate up to 8 KiB
              without --full; with --full also limits and all of deflate
    proxy     the same client, through the endpoint `proxy`, to the fuzzing server as the upstream:
              core; with --full also limits
    tls       core through a TLS listener
By default all six run, --jobs at the same time; the first three and `tls` run with one reactor and
with two.

The servers run on the driver that the environment variable POLYCAST_TEST_IO names: io_uring, which is
the default, or epoll.

The suite needs Python 2.7: $PYTHON27, python2.7 in PATH, or one of pyenv's. The suite is installed
into target/autobahn at the pinned version. Exit code 0: all results are as expected; 1: some are
not; 77: there is no Python 2.7.

The exit code of wstest is always 0, so the results are read from its index.json. A planned case
without a result counts as failed.
"""

import argparse
import collections
import concurrent.futures
import json
import os
import pathlib
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import time

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parent.parent
TARGET = ROOT / "target" / "autobahn"
SUITE = "autobahntestsuite==25.10.1"
VIRTUALENV = "virtualenv==20.21.1"  # the last release line that supports Python 2.7

CASES = {
    "core": ["1.*", "2.*", "3.*", "4.*", "5.*", "6.*", "7.*", "10.*"],
    "limits": ["9.*"],
    "deflate": ["12.*", "13.*"],
}
# Cases x.y.1 to 6 and 11 of sections 12 and 13: messages of up to 8 KiB.
DEFLATE_QUICK = ["12.*.[1-6]$", "12.*.11$", "13.*.[1-6]$", "13.*.11$"]

# The expected result of each suite: the number of cases by behaviour. INFORMATIONAL cases report
# what the server did where the RFC allows several behaviours.
EXPECTED = {
    "core": {"OK": 244, "INFORMATIONAL": 3},
    "limits": {"OK": 54},
    "deflate": {"OK": 216},
    "deflate-quick": {"OK": 84},
}

# The driver that the servers run on.
DRIVER = os.environ.get("POLYCAST_TEST_IO") or "io_uring"

# The maximum time until the suite's fuzzing server listens, in seconds.
START_S = 120

# Cases that send a message and, directly after it, a protocol violation. An endpoint echoes the
# message and then fails the connection. A proxy fails the connection before the echo of its client
# arrives, so through a proxy these cases may be NON-STRICT.
OVERTAKEN = {"3.2", "3.3", "3.4", "4.1.3", "4.1.4", "4.1.5", "4.2.3", "4.2.4", "4.2.5", "5.15"}

CONFIG = """
[[apps]]
id = "1"
key = "autobahn-key"
secret = "autobahn-secret"

[[routes]]
when = [{ path = "/echo" }]
endpoint = "echo"
compression = "dedicated"
"""

TLS_LISTENER = f"""
[[listeners]]
address = "127.0.0.1:0"
tls.certificates = [
  {{ cert = "{ROOT}/tests/fixtures/localhost.pem", key = "{ROOT}/tests/fixtures/localhost.key" }},
]
"""

# The upstream's URL has no path, so the proxy uses the path of each request.
PROXY_CONFIG = """
[[routes]]
endpoint = "proxy"
compression = "dedicated"
proxy.upstreams = "ws://127.0.0.1:PORT"
"""


def python27():
    candidates = [os.environ.get("PYTHON27"), shutil.which("python2.7")]
    pyenv = pathlib.Path(os.environ.get("PYENV_ROOT", pathlib.Path.home() / ".pyenv"))
    candidates += sorted(map(str, pyenv.glob("versions/2.7*/bin/python2.7")))
    for candidate in filter(None, candidates):
        probe = [candidate, "-c", "import sys; sys.exit(sys.version_info[:2] != (2, 7))"]
        if subprocess.run(probe, capture_output=True).returncode == 0:
            return candidate
    return None


def install():
    """Installs the suite, unless it is installed. Returns the bin directory of its virtual
    environment, or None if there is no Python 2.7."""
    venv = TARGET / "venv"
    stamp = venv / "installed.txt"
    if stamp.exists() and stamp.read_text() == SUITE:
        return venv / "bin"
    interpreter = python27()
    if interpreter is None:
        return None
    TARGET.mkdir(parents=True, exist_ok=True)
    shutil.rmtree(venv, ignore_errors=True)
    with tempfile.TemporaryDirectory() as tools:
        subprocess.run([sys.executable, "-m", "venv", tools], check=True)
        quiet = ["-q", "--disable-pip-version-check"]
        subprocess.run([f"{tools}/bin/pip", *quiet, "install", VIRTUALENV], check=True)
        make = [f"{tools}/bin/virtualenv", "-q", "-p", interpreter, str(venv)]
        subprocess.run(make, check=True)
    environment = dict(os.environ, PYTHONWARNINGS="ignore", PIP_DISABLE_PIP_VERSION_CHECK="1")
    constraints = str(HERE / "constraints.txt")
    pip = [str(venv / "bin" / "pip"), "-q", "install", "-c", constraints, SUITE]
    subprocess.run(pip, check=True, env=environment, stderr=subprocess.DEVNULL)
    stamp.write_text(SUITE)
    return venv / "bin"


class Server:
    """A polycast process that listens on a port that the kernel chooses."""

    def __init__(self, binary, threads, config=CONFIG):
        self.file = tempfile.NamedTemporaryFile("w", suffix=".toml")
        self.file.write(config)
        self.file.flush()
        arguments = ["--config", self.file.name]
        # A configuration with listeners is used as it is.
        if "[[listeners]]" not in config:
            arguments += ["--listen", "127.0.0.1:0"]
        arguments += ["--threads", str(threads), "--log-level", "warn"]
        arguments += ["--io", DRIVER]
        self.process = subprocess.Popen([binary, *arguments], stdout=subprocess.PIPE, text=True)
        line = self.process.stdout.readline()
        found = re.search(r"(wss?)://(\S+)", line)
        if not found:
            raise RuntimeError(f"the server did not start: {line!r}")
        self.address = found[2]
        self.url = f"{found[1]}://{self.address}/echo"

    def stop(self):
        self.process.terminate()
        code = self.process.wait(timeout=30)
        if code != 0:
            raise RuntimeError(f"the server ended with exit code {code}")


def planned(bin_dir, patterns):
    """The ids of the suite's cases that match the patterns."""
    script = (
        "import json, sys; import autobahntestsuite.fuzzing as f;"
        "s = f.CaseSet(f.CaseSetname, f.CaseBasename, f.Cases, f.CaseCategories,"
        " f.CaseSubCategories);"
        "print(json.dumps(s.parseSpecCases({'cases': sys.argv[1:], 'exclude-cases': []})))"
    )
    command = [str(bin_dir / "python"), "-c", script, *patterns]
    environment = dict(os.environ, PYTHONWARNINGS="ignore")
    done = subprocess.run(command, check=True, capture_output=True, text=True, env=environment)
    return json.loads(done.stdout)


def judge(name, out, ids, expected, seconds, overtaken=frozenset()):
    """Prints the number of cases by behaviour. Returns whether these numbers are the expected ones
    and each case closed its connection as it should. In the cases `overtaken`, NON-STRICT counts as
    OK."""
    path = out / "index.json"
    if not path.exists():
        print(f"autobahn {name}: no result at all, see {out}/wstest.log")
        return False
    cases = next(iter(json.loads(path.read_text()).values()), {})
    for case_id in overtaken & cases.keys():
        if cases[case_id]["behavior"] == "NON-STRICT":
            cases[case_id]["behavior"] = "OK"
    counts = collections.Counter(case["behavior"] for case in cases.values())
    bad = [f"{i}: no result" for i in ids if i not in cases]
    for case_id, case in cases.items():
        fine = case["behavior"] in ("OK", "INFORMATIONAL")
        if not fine or case["behaviorClose"] not in ("OK", "INFORMATIONAL"):
            bad.append(f"{case_id}: {case['behavior']}, close {case['behaviorClose']}")
    text = ", ".join(f"{n} {behaviour}" for behaviour, n in sorted(counts.items()))
    lines = [f"autobahn {name}: {len(cases)} cases in {seconds:.0f} s: {text}; {len(bad)} failing"]
    lines += ["  " + line for line in bad]
    as_expected = not bad and dict(counts) == expected
    if not bad and not as_expected:
        lines.append(f"  expected: {expected}")
    # One call prints all lines, because other suites print at the same time.
    print("\n".join(lines), flush=True)
    return as_expected


def run_wstest(bin_dir, mode, spec, out, limit_s):
    out.mkdir(parents=True, exist_ok=True)
    (out / "spec.json").write_text(json.dumps(spec))
    log = open(out / "wstest.log", "w")
    environment = dict(os.environ, PYTHONWARNINGS="ignore")
    # `-u 0` disables wstest's web server, which would listen on port 8080.
    command = [str(bin_dir / "wstest"), "-m", mode, "-s", "spec.json", "-u", "0"]
    process = subprocess.Popen(command, cwd=out, stdout=log, stderr=log, env=environment)
    if mode == "fuzzingserver":
        return process
    try:
        process.wait(timeout=limit_s)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
        print(f"autobahn: wstest was ended after {limit_s} s")
    return process


def run_server_suite(bin_dir, binary, suite, threads, full):
    secure = suite == "tls"
    key = "core" if secure else suite
    patterns = CASES[key]
    if suite == "deflate" and not full:
        patterns, key = DEFLATE_QUICK, "deflate-quick"
    name = f"{key}{' through TLS' * secure}, {threads} reactor{'s' if threads > 1 else ''}"
    out = TARGET / f"{'tls-' * secure}{key}-{threads}{'-epoll' * (DRIVER == 'epoll')}"
    shutil.rmtree(out, ignore_errors=True)
    ids = planned(bin_dir, patterns)
    # One reactor tests `dedicated` compression windows (one per connection), several test `shared`
    # windows (one for all connections).
    config = CONFIG if threads == 1 else CONFIG.replace('"dedicated"', '"shared"')
    server = Server(binary, threads, TLS_LISTENER + config if secure else config)
    spec = {
        "outdir": str(out),
        "servers": [{"agent": "polycast", "url": server.url, "options": {"version": 18}}],
        "cases": patterns,
        "exclude-cases": [],
        "exclude-agent-cases": {},
    }
    start = time.time()
    run_wstest(bin_dir, "fuzzingclient", spec, out, 3600 if full else 900)
    server.stop()
    return judge(name, out, ids, EXPECTED[key], time.time() - start)


def wait_for(port, process):
    """Waits until the fuzzing server listens on the port. On a busy machine the suite needs many
    seconds to start."""
    end = time.monotonic() + START_S
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
            return
        except OSError:
            if process.poll() is not None or time.monotonic() > end:
                raise RuntimeError(f"wstest does not listen within {START_S} s") from None
            time.sleep(0.1)


def run_client_suite(bin_dir, client, full, binary=None):
    """Runs our client against the fuzzing server. With `binary`, the client connects through a
    polycast proxy, which offers no compression to the fuzzing server."""
    keys, patterns = ["core"], list(CASES["core"])
    if full:
        keys.append("limits")
        patterns += CASES["limits"]
    if not binary:
        keys.append("deflate" if full else "deflate-quick")
        patterns += CASES["deflate"] if full else DEFLATE_QUICK
    name = "proxy" if binary else "client"
    out = TARGET / name
    shutil.rmtree(out, ignore_errors=True)
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    url = f"ws://127.0.0.1:{port}"
    spec = {
        "outdir": str(out),
        "url": url,
        "cases": patterns,
        "exclude-cases": [],
        "exclude-agent-cases": {},
    }
    start = time.time()
    server = run_wstest(bin_dir, "fuzzingserver", spec, out, 0)
    proxy = None
    try:
        wait_for(port, server)
        address = f"127.0.0.1:{port}"
        if binary:
            proxy = Server(binary, 2, PROXY_CONFIG.replace("PORT", str(port)))
            address = proxy.address
        subprocess.run([client, address], timeout=3600 if full else 900, check=True)
    finally:
        if proxy:
            proxy.stop()
        server.terminate()
        server.wait(timeout=10)
    expected = sum((collections.Counter(EXPECTED[key]) for key in keys), collections.Counter())
    ids = planned(bin_dir, patterns)
    name, overtaken = ("through a proxy", OVERTAKEN) if binary else ("client role", frozenset())
    return judge(name, out, ids, dict(expected), time.time() - start, overtaken)


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--full", action="store_true", help="all of 9, 12 and 13, for our client, too")
    parser.add_argument("--threads", type=int, action="append", help="reactors (1 and 2)")
    parser.add_argument("--binary", default=str(ROOT / "target/release/polycast"))
    parser.add_argument("--client", default=str(ROOT / "target/release/examples/autobahn_client"))
    parser.add_argument("--jobs", type=int, default=3, help="suites that run at once (3)")
    parser.add_argument("suites", nargs="*", help="core, limits, deflate, client, proxy, tls")
    arguments = parser.parse_args()
    unknown = set(arguments.suites) - {*CASES, "client", "proxy", "tls"}
    if unknown:
        parser.error(f"no such suite: {', '.join(sorted(unknown))}")
    bin_dir = install()
    if bin_dir is None:
        print("SKIPPED: autobahn needs Python 2.7; set PYTHON27")
        return 77
    runs = []
    for suite in arguments.suites or ["limits", "client", "proxy", "deflate", "core", "tls"]:
        if suite == "client":
            runs.append((run_client_suite, bin_dir, arguments.client, arguments.full))
        elif suite == "proxy":
            binary = arguments.binary
            runs.append((run_client_suite, bin_dir, arguments.client, arguments.full, binary))
        else:
            for threads in arguments.threads or [1, 2]:
                parts = (arguments.binary, suite, threads, arguments.full)
                runs.append((run_server_suite, bin_dir, *parts))
    # Suites run in parallel, because they mostly wait for the timeouts of their cases. An exception
    # in one suite fails the whole run, after all suites have ended.
    with concurrent.futures.ThreadPoolExecutor(max(1, arguments.jobs)) as pool:
        results = [pool.submit(*run) for run in runs]
        return 0 if all([result.result() for result in results]) else 1


if __name__ == "__main__":
    sys.exit(main())
