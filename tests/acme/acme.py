#!/usr/bin/env python3
"""Certificates by ACME from Pebble, the test server of Let's Encrypt, with its DNS server: by
TLS-ALPN-01 and HTTP-01, with refused nonces, with an external account binding, over a reload and a
restart. Pebble validates each challenge by connecting to the server.

    acme.py --binary target/release/polycast
"""

import argparse
import json
import os
import re
import signal
import socket
import ssl
import subprocess
import sys
import tempfile
import time
import urllib.request

PATIENCE = 40
# A domain that no network has; every name leads to this machine, by the DNS server of the test.
DOMAINS = ["chat.example.test", "ws.example.test"]
BINDING = ("kid-1", "zWNDZM6eQGHWpSRTPal5eIUYFTu7EajVIoguysqZ9wG44nMEtx3MUAsUDkMTQ12W")


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def wait_for(what, holds):
    end = time.monotonic() + PATIENCE
    while time.monotonic() < end:
        if holds():
            return
        time.sleep(0.05)
    raise AssertionError(f"in vain: {what}")


def listens(port):
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


class Process:
    """A process that is ended by its number, with its output in a file."""

    def __init__(self, folder, name, *command, **environment):
        self.log = os.path.join(folder, name + ".log")
        with open(self.log, "ab") as log:
            self.process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env={**os.environ, **environment},
            )

    def __enter__(self):
        return self

    def __exit__(self, kind, *_):
        self.process.send_signal(signal.SIGTERM)
        try:
            self.process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        if kind is not None:
            with open(self.log, encoding="utf-8", errors="replace") as log:
                print(log.read(), file=sys.stderr)


def openssl(folder, *arguments):
    subprocess.run(["openssl", *arguments], cwd=folder, check=True, capture_output=True)


def make_certificates(folder):
    """The certificate of Pebble's own HTTPS server, and its authority."""
    key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"]
    openssl(
        folder, "req", "-x509", *key, "-keyout", "ca.key", "-out", "ca.pem", "-days", "2",
        "-subj", "/CN=polycast tests", "-addext", "basicConstraints=critical,CA:TRUE",
    )  # fmt: skip
    openssl(folder, "req", *key, "-keyout", "s.key", "-out", "s.csr", "-subj", "/CN=localhost")
    with open(os.path.join(folder, "s.ext"), "w", encoding="utf-8") as file:
        file.write("subjectAltName=DNS:localhost\n")
    openssl(
        folder, "x509", "-req", "-in", "s.csr", "-CA", "ca.pem", "-CAkey", "ca.key",
        "-CAcreateserial", "-days", "2", "-extfile", "s.ext", "-out", "s.pem",
    )  # fmt: skip


class Bench:
    """Pebble, its DNS server, and the configuration of the server under test."""

    def __init__(self, binary, folder):
        self.binary, self.folder = binary, folder
        self.secure, self.plain, self.directory, self.management, self.dns, self.control = (
            free_port() for _ in range(6)
        )
        make_certificates(folder)

    def path(self, name):
        return os.path.join(self.folder, name)

    def pebble(self, binding):
        settings = {
            "listenAddress": f"127.0.0.1:{self.directory}",
            "managementListenAddress": f"127.0.0.1:{self.management}",
            "certificate": self.path("s.pem"),
            "privateKey": self.path("s.key"),
            "httpPort": self.plain,
            "tlsPort": self.secure,
            "externalAccountBindingRequired": binding,
            "externalAccountMACKeys": dict([BINDING]) if binding else {},
        }
        with open(self.path("pebble.json"), "w", encoding="utf-8") as file:
            json.dump({"pebble": settings}, file)
        pebble = Process(
            self.folder, "pebble", "pebble", "-config", self.path("pebble.json"),
            "-dnsserver", f"127.0.0.1:{self.dns}", "-strict",
            # One of twenty nonces is refused, and no authorization is used twice. The client gives
            # up after three refusals in a row.
            PEBBLE_VA_NOSLEEP="1", PEBBLE_WFE_NONCEREJECT="5", PEBBLE_AUTHZREUSE="0",
        )  # fmt: skip
        wait_for("Pebble", lambda: listens(self.directory) and listens(self.management))
        return pebble

    def dns_server(self):
        dns = Process(
            self.folder, "dns", "pebble-challtestsrv", "-dns01", f"127.0.0.1:{self.dns}",
            "-http01", "", "-https01", "", "-tlsalpn01", "", "-management",
            f"127.0.0.1:{self.control}", "-defaultIPv4", "127.0.0.1", "-defaultIPv6", "",
        )  # fmt: skip
        wait_for("the DNS server", lambda: listens(self.control))
        return dns

    def write(self, domains, challenge, more=""):
        with open(self.path("polycast.new"), "w", encoding="utf-8") as file:
            file.write(
                f"threads = 2\npin = false\n[[listeners]]\naddress = '127.0.0.1:{self.secure}'\n"
                f"[listeners.tls.acme]\naccept_terms = true\ndomains = {domains}\n"
                f"store = 'store'\ncontact = ['ops@example.test']\nca_file = 'ca.pem'\n"
                f"directory = 'https://localhost:{self.directory}/dir'\n"
                f"challenge = '{challenge}'\n{more}\n"
                f"[[listeners]]\naddress = '127.0.0.1:{self.plain}'\n[metrics]\nopen = true\n"
                "[[apps]]\nid = '1'\nkey = 'app-key'\nsecret = 'app-secret'\n"
            )
        os.rename(self.path("polycast.new"), self.path("polycast.toml"))

    def server(self):
        server = Process(
            self.folder, "polycast", self.binary, "--config", self.path("polycast.toml")
        )
        wait_for("the server", lambda: listens(self.plain))
        return server

    def get(self, path):
        url = f"http://127.0.0.1:{self.plain}{path}"
        with urllib.request.urlopen(url, timeout=PATIENCE) as answer:
            return answer.read().decode()

    def count(self, name):
        values = re.findall(rf"^polycast_{name} (\d+)", self.get("/metrics"), re.M)
        return sum(map(int, values))

    def trust(self):
        """A client that trusts the certificates that this Pebble issues."""
        own = ssl.create_default_context(cafile=self.path("ca.pem"))
        # Pebble's management listener has the certificate of its HTTPS server.
        url = f"https://localhost:{self.management}/roots/0"
        with urllib.request.urlopen(url, timeout=PATIENCE, context=own) as answer:
            return ssl.create_default_context(cadata=answer.read().decode())

    def serial(self, trust, domain):
        """The serial number of the verified certificate for this name."""
        with socket.create_connection(("127.0.0.1", self.secure), PATIENCE) as plain:
            with trust.wrap_socket(plain, server_hostname=domain) as secure:
                return secure.getpeercert()["serialNumber"]


def check_challenge(bench, challenge):
    bench.write(DOMAINS, challenge)
    with bench.server():
        wait_for("the certificates", lambda: bench.count("acme_certificates_total") == 2)
        assert bench.count("acme_orders_total") == 2, "no order has failed"
        trust = bench.trust()
        serials = {bench.serial(trust, domain) for domain in DOMAINS}
        assert len(serials) == 2, "a certificate for each domain"
        # One more domain, by a reload; the others keep their certificates.
        more = [*DOMAINS, "late.example.test"]
        bench.write(more, challenge)
        wait_for("the late domain", lambda: bench.count("acme_certificates_total") == 3)
        assert bench.serial(trust, more[2]) not in serials
        assert {bench.serial(trust, domain) for domain in DOMAINS} == serials
        assert bench.get("/ready") == "ok\n"
    with bench.server():
        wait_for("the domains", lambda: bench.count("acme_domains") == 3)
        assert {bench.serial(trust, domain) for domain in DOMAINS} == serials, "from the store"
        assert bench.count("acme_orders_total") == 0
    for name in os.listdir(bench.path("store")):
        mode = os.stat(os.path.join(bench.path("store"), name)).st_mode & 0o777
        assert mode == 0o600, f"{name}: {mode:o}"


def check_binding(bench):
    wrong = f"eab_key_id = '{BINDING[0]}'\neab_key = 'bm90IHRoZSBrZXk'"
    bench.write(DOMAINS[:1], "tls-alpn-01", wrong)
    with bench.server():
        wait_for("the refusal", lambda: bench.count("acme_refused_total") == 1)
        assert not os.path.exists(os.path.join(bench.path("store"), "account.json"))
        right = f"eab_key_id = '{BINDING[0]}'\neab_key = '{BINDING[1]}'"
        bench.write(DOMAINS[:1], "tls-alpn-01", right)
        wait_for("the certificate", lambda: bench.count("acme_certificates_total") == 1)
        bench.serial(bench.trust(), DOMAINS[0])


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--binary", required=True)
    binary = os.path.abspath(parser.parse_args().binary)
    for name, binding, check in [
        ("TLS-ALPN-01", False, lambda bench: check_challenge(bench, "tls-alpn-01")),
        ("HTTP-01", False, lambda bench: check_challenge(bench, "http-01")),
        ("external account binding", True, check_binding),
    ]:
        with tempfile.TemporaryDirectory(prefix="polycast-acme-") as folder:
            bench = Bench(binary, folder)
            with bench.dns_server(), bench.pebble(binding):
                check(bench)
        print(f"ok: {name}")


if __name__ == "__main__":
    main()
