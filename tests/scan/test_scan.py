"""A scan of a TLS listener by sslyze finds no weak protocol, cipher or curve, and no known hole."""

import os
import pathlib
import re
import subprocess
import tempfile
import threading
import unittest

from sslyze import (
    ScanCommand,
    ScanCommandAttemptStatusEnum,
    Scanner,
    ServerNetworkLocation,
    ServerScanRequest,
)

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
BINARY = os.environ.get("POLYCAST", str(ROOT / "target" / "release" / "polycast"))
FIXTURES = ROOT / "tests" / "fixtures"
LISTENS = re.compile(r"https://(\S+):(\d+)")
CONFIG = f"""
[[listeners]]
address = "127.0.0.1:0"
tls.certificates = [
  {{ cert = "{FIXTURES}/localhost.pem", key = "{FIXTURES}/localhost.key" }},
  {{ cert = "{FIXTURES}/rsa.pem", key = "{FIXTURES}/rsa.key" }},
]
[[apps]]
id = "1"
key = "app-key"
secret = "app-secret"
"""
OLD = ("ssl_2_0", "ssl_3_0", "tls_1_0", "tls_1_1")
STRONG = re.compile(r"^TLS_(ECDHE_(ECDSA|RSA)_WITH_)?(AES_(128|256)_GCM|CHACHA20_POLY1305)_SHA(256|384)$")
CURVES = {"X25519", "secp256r1", "secp384r1"}


class Scan(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.folder = tempfile.TemporaryDirectory(prefix="polycast-scan-")
        path = pathlib.Path(cls.folder.name) / "polycast.toml"
        path.write_text(CONFIG)
        arguments = [BINARY, "--config", str(path), "--threads", "1", "--no-pin"]
        cls.process = subprocess.Popen(arguments, stdout=subprocess.PIPE, text=True)
        killer = threading.Timer(15, cls.process.kill)
        killer.start()
        found = LISTENS.search(cls.process.stdout.readline())
        killer.cancel()
        scanner = Scanner()
        location = ServerNetworkLocation("localhost", int(found[2]), found[1])
        scanner.queue_scans([ServerScanRequest(location)])
        cls.results = [it.scan_result for it in scanner.get_results()]

    @classmethod
    def tearDownClass(cls):
        cls.process.terminate()
        code = cls.process.wait(15)
        cls.process.stdout.close()
        cls.folder.cleanup()
        assert code == 0, code

    def result(self, name):
        self.assertEqual(len(self.results), 1)
        attempt = getattr(self.results[0], name)
        self.assertEqual(attempt.status, ScanCommandAttemptStatusEnum.COMPLETED, attempt)
        return attempt.result

    def test_every_scan_was_made(self):
        for command in ScanCommand:
            with self.subTest(command.value):
                self.result(command.value)

    def test_old_protocols_are_refused(self):
        for version in OLD:
            result = self.result(f"{version}_cipher_suites")
            self.assertFalse(result.is_tls_version_supported, version)

    def test_ciphers_are_strong(self):
        for version, least in (("tls_1_2", 6), ("tls_1_3", 3)):
            result = self.result(f"{version}_cipher_suites")
            names = [it.cipher_suite.name for it in result.accepted_cipher_suites]
            self.assertGreaterEqual(len(names), least, names)
            for name in names:
                self.assertRegex(name, STRONG)

    def test_curves_are_strong(self):
        curves = self.result("elliptic_curves").supported_curves
        self.assertLessEqual({it.name for it in curves}, CURVES)

    def test_known_holes_are_closed(self):
        self.assertFalse(self.result("heartbleed").is_vulnerable_to_heartbleed)
        self.assertFalse(self.result("openssl_ccs_injection").is_vulnerable_to_ccs_injection)
        self.assertFalse(self.result("tls_compression").supports_compression)
        renegotiation = self.result("session_renegotiation")
        self.assertTrue(renegotiation.supports_secure_renegotiation)
        self.assertFalse(renegotiation.is_vulnerable_to_client_renegotiation_dos)
        self.assertFalse(self.result("tls_1_3_early_data").supports_early_data)
        self.assertIn("NOT_VULNERABLE", self.result("robot").robot_result.name)
        self.assertTrue(self.result("tls_fallback_scsv").supports_fallback_scsv)


if __name__ == "__main__":
    unittest.main()
