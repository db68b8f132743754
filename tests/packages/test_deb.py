"""The Debian package: made of the optimised server that POLYCAST names, installed, run and purged in
a copy of this machine's file system that exists only as long as the test."""

import os
import re
import shutil
import subprocess
import unittest
from pathlib import Path

from support import ROOT, Server, free_port, run, scratch

CONFIG = "/etc/polycast/polycast.toml"
VARIABLES = "/etc/default/polycast"

# Mounts an overlay of / whose upper layer is in memory, all in a mount namespace of its own. It
# lasts until standard input ends.
MACHINE = """
set -e
mount -t tmpfs tmpfs "$1"
mkdir "$1/upper" "$1/work" "$1/root"
mount -t overlay overlay -o "lowerdir=/,upperdir=$1/upper,workdir=$1/work" "$1/root"
mount --rbind /dev "$1/root/dev"
mount -t proc proc "$1/root/proc"
mount -t tmpfs tmpfs "$1/root/run"
echo ready
exec cat >/dev/null
"""


class Machine:
    """This machine's file system, changes to which are lost when the test ends."""

    def __init__(self, test):
        self.folder = scratch(test)
        self.process = subprocess.Popen(
            ["unshare", "--mount", "sh", "-c", MACHINE, "sh", str(self.folder)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )
        test.addCleanup(self.process.communicate)
        if self.process.stdout.readline() != "ready\n":
            raise AssertionError(f"no overlay: {self.process.communicate()[1]}")
        self.inside = [
            "nsenter", f"--mount=/proc/{self.process.pid}/ns/mnt", "chroot", f"{self.folder}/root",
        ]

    def run(self, *command, check=True):
        return run(*self.inside, *command, check=check, env={
            "PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "DEBIAN_FRONTEND": "noninteractive",
        })

    def shell(self, script):
        return self.run("sh", "-c", script).stdout.strip()

    def exists(self, path):
        return self.run("test", "-e", path, check=False).returncode == 0

    def changed(self):
        """The files that were made or changed, but not those that were removed."""
        script = 'cd "$1/upper" && find . -type f -o -type l'
        found = run(
            *self.inside[:2], "sh", "-c", script, "sh", self.folder, env={"PATH": "/usr/bin:/bin"}
        )
        return found.stdout.splitlines()


class Deb(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.folder = Path(os.environ["PACKAGES"]) / "deb"
        shutil.rmtree(cls.folder, ignore_errors=True)
        # The packer looks for the server in `release` of the target directory.
        binary = Path(os.environ["POLYCAST"]).resolve()
        target = cls.folder / "target"
        (target / "release").mkdir(parents=True)
        os.link(binary, target / "release/polycast")
        made = run(
            ROOT / "packaging/deb/build.sh", cls.folder, "--no-build", "--fast",
            env={**os.environ, "CARGO_TARGET_DIR": str(target)},
        )
        cls.package = made.stdout.splitlines()[-1]

    def field(self, name):
        return run("dpkg-deb", "--field", self.package, name).stdout.strip()

    def test_control_file_names_what_the_server_needs(self):
        version = run(ROOT / "packaging/release/version.sh").stdout.strip()
        self.assertEqual(self.field("Version"), version + "-1")
        self.assertEqual(self.field("Architecture"), run("dpkg", "--print-architecture").stdout.strip())
        self.assertRegex(self.field("Depends"), r"libc6 \(>= [\d.]+\)")
        self.assertIn("systemd | systemd-standalone-sysusers", self.field("Depends"))
        control = run("dpkg-deb", "--info", self.package, "conffiles").stdout.split()
        self.assertEqual(control, [CONFIG])

    def test_lintian_finds_nothing(self):
        if shutil.which("lintian") is None:
            self.skipTest("lintian is missing")
        found = run("lintian", "--allow-root", self.package, check=False)
        self.assertEqual((found.stdout + found.stderr).strip(), "")

    def test_unit_works_with_a_systemd_that_does_not_know_notify_reload(self):
        folder = scratch(self)
        run("dpkg-deb", "--extract", self.package, folder)
        unit = (folder / "usr/lib/systemd/system/polycast.service").read_text(encoding="utf-8")
        self.assertIn("\nType=notify\nExecReload=/bin/kill -HUP $MAINPID\n", unit)
        self.assertNotIn("notify-reload", unit)
        stop_s = int(re.search(r"^TimeoutStopSec=(\d+)s$", unit, re.M)[1])
        config = (folder / CONFIG.lstrip("/")).read_text(encoding="utf-8")
        seconds = [int(it) for it in re.findall(r"^(?:lame_duck_s|drain_s) = (\d+)$", config, re.M)]
        self.assertEqual(len(seconds), 2)
        self.assertGreater(stop_s, sum(seconds))

    def test_it_is_installed_run_upgraded_removed_and_purged(self):
        if os.geteuid() != 0:
            self.skipTest("only root can mount a copy of the file system")
        machine = Machine(self)
        before = machine.shell("getent passwd; getent group")
        self.assertNotIn("polycast", before)
        machine.run("dpkg", "--install", self.package)

        # Installed: an account, a configuration that only the server can read, and the unit.
        self.assertEqual(machine.shell(f"stat -c '%U %G %a' {CONFIG}"), "root polycast 640")
        self.assertTrue(machine.exists("/etc/systemd/system/multi-user.target.wants/polycast.service"))
        self.assertFalse(machine.exists("/etc/systemd/system/polycast.service"), "not masked")
        self.assertEqual(machine.shell("getent passwd polycast | cut -d: -f7"), "/usr/sbin/nologin")
        self.assertIn(".TH polycast 1", machine.shell("zcat /usr/share/man/man1/polycast.1.gz"))
        machine.run("bash", "-n", "/usr/share/bash-completion/completions/polycast")
        for unit in ["polycast.service", "polycast.socket"]:
            verify = machine.run("systemd-analyze", "verify", "--man=no", unit, check=False)
            about = [line for line in verify.stderr.splitlines() if "polycast." in line]
            self.assertEqual(about, [])

        # The socket is there for who wants it, for the address of the configuration.
        wanted = "/etc/systemd/system/sockets.target.wants/polycast.socket"
        self.assertFalse(machine.exists(wanted))
        socket = machine.shell("sed -n 's/^ListenStream=//p' /usr/lib/systemd/system/polycast.socket")
        self.assertEqual(machine.shell(f"sed -n 's/^address = //p' {CONFIG}"), f'"{socket}"')
        machine.run("systemctl", "enable", "polycast.socket")
        self.assertTrue(machine.exists(wanted))

        # Run as the unit says, by the account of the unit, with the configuration of the package.
        variables = machine.shell(f"grep -v '^#' {VARIABLES}").split()
        variables = dict(line.split("=") for line in variables)
        self.assertRegex(variables["POLYCAST_APP_SECRET"], "^[0-9a-f]{40}$")
        self.assertNotEqual(variables["POLYCAST_APP_SECRET"], variables["POLYCAST_APP_KEY"])
        self.assertEqual(machine.shell(f"stat -c '%U %a' {VARIABLES}"), "root 600")
        check = machine.shell(f"sed -n 's/^# *env/env/p' {CONFIG}")
        self.assertIn(": ok: ", machine.shell(check))
        start = machine.shell("sed -n 's/^ExecStart=//p' /usr/lib/systemd/system/polycast.service")
        port = free_port()
        account = ["setpriv", "--reuid=polycast", "--regid=polycast", "--init-groups", "--no-new-privs"]
        server = Server(
            self, port, *machine.inside, *account, *start.split(),
            "--listen", f"127.0.0.1:{port}", "--threads", "1",
            env={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", **variables},
        )
        self.assertEqual(server.delivers("hello"), "hello")
        self.assertEqual(server.stop(), 0, server.text())

        # Installed again: what the administrator has changed stays.
        machine.shell(f"chmod 600 {CONFIG} && chown polycast {CONFIG} && echo '#edited' >> {CONFIG}")
        secret = machine.shell(f"cat {VARIABLES}")
        machine.run("dpkg", "--install", self.package)
        self.assertIn("#edited", machine.shell(f"cat {CONFIG}"))
        self.assertEqual(machine.shell(f"cat {VARIABLES}"), secret)
        self.assertEqual(machine.shell(f"stat -c '%U %a' {CONFIG}"), "polycast 600")
        self.assertTrue(machine.exists(wanted), "as the administrator has it")
        machine.run("systemctl", "disable", "polycast.socket", "polycast.service")
        machine.run("dpkg", "--install", self.package)
        service = "/etc/systemd/system/multi-user.target.wants/polycast.service"
        self.assertFalse(machine.exists(wanted) or machine.exists(service), "not enabled again")
        machine.run("systemctl", "enable", "polycast.socket")

        machine.run("dpkg", "--remove", "polycast")
        self.assertFalse(machine.exists("/usr/bin/polycast"))
        self.assertTrue(machine.exists(CONFIG))

        machine.shell("mkdir /var/lib/polycast && touch /var/lib/polycast/state")
        machine.run("dpkg", "--purge", "polycast")
        self.assertFalse(machine.exists("/etc/polycast"))
        self.assertEqual(machine.shell("getent passwd; getent group"), before)
        left = [path for path in machine.changed() if "polycast" in path]
        self.assertEqual(left, [])


if __name__ == "__main__":
    unittest.main()
