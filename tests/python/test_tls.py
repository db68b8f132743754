"""TLS tests with OpenSSL: its command, Python's `ssl` module, and a WebSocket library over that."""

import asyncio
import hashlib
import http.client
import shutil
import socket
import ssl
import subprocess
import unittest

from support import APPS, EVENT_S, FIXTURES, KEY, WithServer, messages, run
from websockets.asyncio.client import connect

VERSIONS = (ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3)


def listeners(more=""):
    pair = f'{{ cert = "{FIXTURES}/localhost.pem", key = "{FIXTURES}/localhost.key" }}'
    return f'[[listeners]]\naddress = "127.0.0.1:0"\n[listeners.tls]\ncertificates = [{pair}]\n{more}'


ROUTES = """
[[routes]]
when = [{ path = "/echo" }]
endpoint = "echo"
compression = "dedicated"
[[routes]]
when = [{ path = "/live" }]
endpoint = "health"
[[routes]]
endpoint = "apps"
"""
CONFIG = listeners() + ROUTES + APPS
MUTUAL = listeners(f'mutual = "required"\nclient_ca = "{FIXTURES}/ca.pem"') + ROUTES + APPS


def guarded():
    """A configuration with one certificate guard for each route. The certificate `client` of the
    fixtures satisfies those of /live and /named, but not that of /other."""
    der = ssl.PEM_cert_to_DER_cert((FIXTURES / "client.pem").read_text())
    lists = {
        "live": f'fingerprints = ["{hashlib.sha256(der).hexdigest()}"]',
        "other": 'common_names = ["server"]\nalternative_names = ["dns:clients", "ip:127.0.0.2"]',
        "named": 'alternative_names = ["dns:cl*", "uri:*"]',
    }
    text = listeners(f'mutual = "requested"\nclient_ca = "{FIXTURES}/ca.pem"\n')
    for name, entries in lists.items():
        text += f'[[guards]]\nname = "{name}"\ntype = "certificate"\n'
        text += f"[guards.certificate]\n{entries}\n"
    for name in lists:
        text += f'[[routes]]\nwhen = [{{ path = "/{name}" }}]\nguarded = {{ {name} = [] }}\n'
        text += 'endpoint = "health"\n'
    return text + APPS


def context(version=None, certificate=None):
    made = ssl.create_default_context(cafile=str(FIXTURES / "ca.pem"))
    if version:
        made.minimum_version = made.maximum_version = version
    if certificate:
        made.load_cert_chain(FIXTURES / f"{certificate}.pem", FIXTURES / f"{certificate}.key")
    return made


def exchange(server, made, session=None, path="/live"):
    """Sends one request on a new connection. Returns the status, the TLS session, and whether the
    session was resumed."""
    with socket.create_connection((server.host, server.port), EVENT_S) as plain:
        with made.wrap_socket(plain, server_hostname="localhost", session=session) as secure:
            request = f"GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
            secure.sendall(request.encode())
            response = http.client.HTTPResponse(secure)
            response.begin()
            response.read()
            # The server closes the connection after the response.
            assert secure.recv(1) == b""
            return response.status, secure.session, secure.session_reused


class Ssl(WithServer):
    config = CONFIG
    threads = 2

    def test_messages_come_back(self):
        async def body():
            for version in VERSIONS:
                url = self.server.secure_url("/echo")
                secure = context(version)
                async with connect(url, ssl=secure, max_size=None, close_timeout=EVENT_S) as it:
                    self.assertEqual(it.transport.get_extra_info("ssl_object").version()[:5], "TLSv1")
                    for message in messages():
                        await it.send(message)
                        self.assertEqual(await asyncio.wait_for(it.recv(), EVENT_S), message)
                self.assertEqual(it.close_code, 1000)

        run(body())

    def test_an_application_is_served(self):
        async def body():
            url = self.server.secure_url(f"/app/{KEY}?protocol=7")
            async with connect(url, ssl=context(), close_timeout=EVENT_S) as client:
                said = await asyncio.wait_for(client.recv(), EVENT_S)
                self.assertIn("connection_established", said)

        run(body())

    def test_a_session_is_resumed(self):
        for version in VERSIONS:
            made = context(version)
            status, session, reused = exchange(self.server, made)
            self.assertEqual((status, reused), (200, False))
            status, _, reused = exchange(self.server, made, session)
            self.assertEqual((status, reused), (200, True))

    def test_who_does_not_trust_the_certificate_does_not_connect(self):
        made = ssl.create_default_context(cafile=str(FIXTURES / "rsa.pem"))
        with self.assertRaises(ssl.SSLCertVerificationError):
            exchange(self.server, made)

    def test_old_versions_are_refused(self):
        made = context()
        made.set_ciphers("ALL:@SECLEVEL=0")
        made.minimum_version = ssl.TLSVersion.TLSv1
        made.maximum_version = ssl.TLSVersion.TLSv1_1
        with self.assertRaises((ssl.SSLError, ConnectionError)):
            exchange(self.server, made)


class Mutual(WithServer):
    config = MUTUAL

    def test_only_who_shows_a_certificate_is_served(self):
        for version in VERSIONS:
            self.assertEqual(exchange(self.server, context(version, "client"))[0], 200)
            for certificate in (None, "rsa"):
                with self.assertRaises((ssl.SSLError, ConnectionError)):
                    exchange(self.server, context(version, certificate))


class Guarded(WithServer):
    config = guarded()

    def test_certificates_are_let_in_by_what_they_say(self):
        for version in VERSIONS:
            made = context(version, "client")
            status, session, _ = exchange(self.server, made)
            self.assertEqual(status, 200)
            for path, want in (("/live", 200), ("/named", 200), ("/other", 403)):
                status = exchange(self.server, made, session, path)[0]
                self.assertEqual(status, want, path)
            for path in ("/live", "/other", "/named"):
                self.assertEqual(exchange(self.server, context(version), None, path)[0], 401)


@unittest.skipUnless(shutil.which("openssl"), "SKIPPED: openssl is missing")
class Command(WithServer):
    config = CONFIG

    def ask(self, *arguments):
        target = f"{self.server.host}:{self.server.port}"
        command = ["openssl", "s_client", "-connect", target, "-CAfile", FIXTURES / "ca.pem"]
        command += ["-verify_return_error", "-ign_eof", *arguments]
        request = b"GET /live HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
        done = subprocess.run(command, input=request, capture_output=True, timeout=60)
        return done.returncode, (done.stdout + done.stderr).decode()

    def test_each_version_and_suite_is_spoken(self):
        suites = ("ECDHE-ECDSA-AES256-GCM-SHA384", "ECDHE-ECDSA-CHACHA20-POLY1305")
        cases = [("-tls1_2", "-cipher", suite) for suite in suites]
        cases += [("-tls1_3",), ("-tls1_3", "-ciphersuites", "TLS_CHACHA20_POLY1305_SHA256")]
        for case in cases:
            code, said = self.ask("-alpn", "http/1.1", "-servername", "localhost", *case)
            self.assertEqual(code, 0, said)
            for words in ("HTTP/1.1 200 OK", "ALPN protocol: http/1.1", "Verify return code: 0"):
                self.assertIn(words, said)
            self.assertIn("closed", said)

    def test_what_is_not_spoken_is_refused(self):
        for case in (
            ("-tls1_1", "-cipher", "ALL:@SECLEVEL=0"),
            ("-tls1_2", "-cipher", "AES128-GCM-SHA256:ECDHE-ECDSA-AES128-SHA"),
            ("-alpn", "h2"),
        ):
            code, said = self.ask(*case)
            self.assertNotEqual(code, 0, said)
            self.assertIn("alert", said)
