"""The static binary, and the container image as far as it can be checked without Docker: the final
stage of the Dockerfile becomes a folder, in which the server runs by `chroot` as the image's user."""

import hashlib
import json
import os
import re
import shlex
import shutil
import tarfile
import unittest
from pathlib import Path

from support import ROOT, Server, free_port, run, scratch

# Compiles in a fraction of the time of the optimised build. What is checked does not depend on it.
QUICK = {
    "CARGO_PROFILE_RELEASE_OPT_LEVEL": "0",
    "CARGO_PROFILE_RELEASE_LTO": "off",
    "CARGO_PROFILE_RELEASE_DEBUG": "0",
}


def static_binary(architecture):
    build = run(
        ROOT / "packaging/static/build.sh", architecture, cwd=ROOT, env={**os.environ, **QUICK}
    )
    return build.stdout.splitlines()[-1]


def dockerfile():
    """The instructions of the Dockerfile's final stage, in which lines that end in a backslash are
    joined."""
    text = (ROOT / "packaging/docker/Dockerfile").read_text(encoding="utf-8")
    lines = [line for line in re.sub(r"\\\n", " ", text).splitlines() if not line.startswith("#")]
    instructions = [tuple(line.split(None, 1)) for line in lines if line.strip()]
    last = max(i for i, (name, _) in enumerate(instructions) if name == "FROM")
    return instructions[:last], instructions[last:]


class Static(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.host = run("dpkg", "--print-architecture").stdout.strip()
        cls.binary = static_binary(cls.host)

    def test_no_library_and_no_interpreter_is_needed(self):
        headers = run("readelf", "--program-headers", "--dynamic", "--wide", self.binary).stdout
        self.assertNotRegex(headers, "INTERP|NEEDED")
        self.assertIn("LOAD", headers)

    def test_dockerfile_builds_as_this_test_does(self):
        build, final = dockerfile()
        commands = [words for name, words in build if name == "RUN"]
        self.assertEqual(commands, [
            'packaging/static/prepare.sh "$TARGETARCH"',
            'packaging/static/build.sh "$TARGETARCH" /polycast',
        ])
        self.assertIn(("ARG", "TARGETARCH"), build)
        self.assertEqual(final[0], ("FROM", "scratch"))

    def image(self):
        """The files of the image, and what is run in it, by whom."""
        folder = scratch(self)
        os.chmod(folder, 0o755)
        _, final = dockerfile()
        words = {name: value for name, value in final if name not in ("COPY", "FROM")}
        for name, value in final:
            if name != "COPY":
                continue
            *options, source, destination = value.split()
            source = self.binary if options == ["--from=build"] else ROOT / source
            self.assertIn(options, ([], ["--from=build"]))
            destination = folder / destination.lstrip("/")
            destination.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(source, destination)
        command = json.loads(words["ENTRYPOINT"]) + json.loads(words["CMD"])
        return folder, command, words["USER"]

    def test_image_serves_as_an_unprivileged_user_in_an_empty_root(self):
        if os.geteuid() != 0:
            self.skipTest("only root can change the root directory")
        folder, command, user = self.image()
        self.assertEqual(user, "65532:65532")
        inside = [shutil.which("chroot"), f"--userspec={user}", "--groups=", folder]

        missing = run(*inside, *command, check=False, env={})
        self.assertEqual(missing.returncode, 2, missing.stderr)
        self.assertIn("POLYCAST_APP_ID", missing.stderr)
        run(*inside, command[0], "doctor", env={})

        port = free_port()
        listen = ["--listen", f"127.0.0.1:{port}", "--threads", "1"]
        server = Server(self, port, *inside, *command, *listen)
        self.assertEqual(server.delivers("hello"), "hello")
        process = f"/proc/{server.process.pid}"
        self.assertEqual(os.readlink(process + "/root"), str(folder))
        with open(process + "/status", encoding="ascii") as status:
            self.assertIn("Uid:\t65532\t65532\t65532\t65532\n", status.read())
        # Nothing was written.
        files = sorted(str(it.relative_to(folder)) for it in folder.rglob("*") if it.is_file())
        self.assertEqual(files, ["etc/polycast/polycast.toml", "usr/bin/polycast"])

    def test_archive_has_everything_and_is_the_same_each_time(self):
        pack = ROOT / "packaging/release/archive.sh"
        paths = []
        for _ in range(2):
            folder = scratch(self)
            paths.append(run(pack, self.binary, self.host, folder).stdout.strip())
        one, two = (hashlib.sha256(Path(path).read_bytes()).hexdigest() for path in paths)
        self.assertEqual(one, two)
        version = run(ROOT / "packaging/release/version.sh").stdout.strip()
        name = f"polycast-{version}-linux-{self.host}"
        self.assertEqual(os.path.basename(paths[0]), name + ".tar.gz")
        with tarfile.open(paths[0]) as archive:
            members = {it.name: it for it in archive.getmembers()}
            self.assertEqual(members[f"{name}/polycast"].mode, 0o755)
            self.assertEqual({it.uid for it in members.values()}, {0})
            page = archive.extractfile(f"{name}/polycast.1").read()
        self.assertIn(b".TH polycast 1", page)
        for file in ["polycast.bash", "polycast.fish", "_polycast", "polycast.example.toml",
                     "LICENSE", "polycast.service", "polycast.sysusers"]:
            self.assertGreater(members[f"{name}/{file}"].size, 0, file)


class OtherArchitecture(unittest.TestCase):
    """Builds for another architecture and runs the server with qemu, which has no io_uring. It takes
    minutes, so POLYCAST_CROSS has to name it: POLYCAST_CROSS=arm64."""

    def test_server_for_another_architecture_serves_on_epoll(self):
        architecture = os.environ.get("POLYCAST_CROSS")
        if not architecture:
            self.skipTest("POLYCAST_CROSS names no architecture")
        binary = static_binary(architecture)
        machine = {"amd64": "x86_64", "arm64": "aarch64"}[architecture]
        port = free_port()
        options = f"--io epoll --threads 1 --no-pin --listen 127.0.0.1:{port}"
        config = ROOT / "packaging/docker/polycast.toml"
        server = Server(
            self, port, f"qemu-{machine}", binary, "--config", config, *shlex.split(options),
            env={**os.environ, **Server.VARIABLES},
        )
        self.assertEqual(server.delivers("x" * 1000), "x" * 1000)
        self.assertEqual(server.stop(), 0, server.text())


if __name__ == "__main__":
    unittest.main()
