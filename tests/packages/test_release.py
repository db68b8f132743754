"""The release workflow: linted, and the scripts that it runs."""

import os
import re
import shutil
import subprocess
import sys
import unittest
from pathlib import Path

import yaml

from support import ROOT, run, scratch

# The linters are installed beside the interpreter.
TOOLS = Path(sys.executable).parent
RELEASE = ROOT / "packaging/release"
WORKFLOW = ROOT / ".github/workflows/release.yml"


def with_tools():
    return {**os.environ, "PATH": f"{TOOLS}:{os.environ['PATH']}"}


class Lint(unittest.TestCase):
    def test_workflow_is_valid_and_its_scripts_are_sound(self):
        run("actionlint", WORKFLOW, env=with_tools())

    def test_workflow_gives_no_more_rights_than_needed(self):
        run("zizmor", "--offline", "--no-progress", "--min-severity", "low", WORKFLOW.parent,
            env=with_tools())

    def test_dockerfile_is_sound(self):
        run("hadolint", ROOT / "packaging/docker/Dockerfile", env=with_tools())

    def test_scripts_are_sound(self):
        scripts = sorted(
            path for path in (ROOT / "packaging").rglob("*")
            if path.is_file() and path.read_bytes().startswith(b"#!/")
            and b"sh\n" in path.read_bytes().splitlines(keepends=True)[0]
        )
        self.assertGreater(len(scripts), 8)
        run("shellcheck", "--external-sources", *scripts, cwd=ROOT, env=with_tools())


class Workflow(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.jobs = yaml.safe_load(WORKFLOW.read_text(encoding="utf-8"))["jobs"]

    def test_scripts_that_it_runs_exist(self):
        text = WORKFLOW.read_text(encoding="utf-8")
        scripts = set(re.findall(r"packaging/[\w/]+\.sh", text))
        self.assertGreater(len(scripts), 6)
        for script in scripts:
            self.assertTrue(os.access(ROOT / script, os.X_OK), script)

    def test_actions_are_pinned_by_commit(self):
        steps = [step for job in self.jobs.values() for step in job["steps"]]
        used = [step["uses"] for step in steps if "uses" in step]
        self.assertGreater(len(used), 8)
        for action in used:
            self.assertRegex(action, r"^[\w-]+/[\w-]+@[0-9a-f]{40}$")

    def test_both_architectures_are_built_and_only_tags_are_published(self):
        architectures = [
            it["architecture"] for it in self.jobs["build"]["strategy"]["matrix"]["include"]
        ]
        self.assertEqual(architectures, ["amd64", "arm64"])
        self.assertEqual(self.jobs["release"]["if"], "github.ref_type == 'tag'")
        image = self.jobs["image"]["steps"]
        push = next(step for step in image if "build-push" in step.get("uses", ""))
        self.assertEqual(push["with"]["push"], "${{ github.ref_type == 'tag' }}")
        self.assertEqual(push["with"]["platforms"], "linux/amd64,linux/arm64")


class Scripts(unittest.TestCase):
    def setUp(self):
        # A copy with other versions, in which the scripts run.
        self.root = scratch(self)
        shutil.copytree(RELEASE, self.root / "packaging/release")
        self.version("1.2.3", "# Changelog\n\n## Unreleased\n\n- New.\n\n## 1.2.3\n\n### Fixed\n\n"
                     "- One.\n- Two.\n\n## 1.2.2\n\nOlder.\n")

    def version(self, version, changelog):
        manifest = f'[package]\nname = "x"\nversion = "{version}"\n\n[dependencies]\nversion = "9"\n'
        (self.root / "Cargo.toml").write_text(manifest, encoding="utf-8")
        (self.root / "CHANGELOG.md").write_text(changelog, encoding="utf-8")

    def script(self, name, *arguments):
        return run(self.root / "packaging/release" / name, *arguments, check=False)

    def test_version_is_that_of_the_manifest_and_of_the_tag(self):
        self.assertEqual(self.script("version.sh").stdout, "1.2.3\n")
        self.assertEqual(self.script("version.sh", "v1.2.3").stdout, "1.2.3\n")
        for tag in ("1.2.3", "v1.2.4", "v1.2.3-rc1", ""):
            refused = self.script("version.sh", tag)
            self.assertEqual(refused.returncode, 1, tag)
            self.assertIn("but Cargo.toml has version 1.2.3", refused.stderr)

    def test_tag_without_a_section_of_the_changelog_is_refused(self):
        self.version("2.0.0", "# Changelog\n\n## 2.0.0\n\n## 1.0.0\n\nOld.\n")
        refused = self.script("version.sh", "v2.0.0")
        self.assertEqual(refused.returncode, 1)
        self.assertIn('CHANGELOG.md has no section "## 2.0.0", or an empty one', refused.stderr)

    def test_notes_are_the_section_of_the_version(self):
        self.assertEqual(self.script("notes.sh", "1.2.3").stdout, "### Fixed\n\n- One.\n- Two.\n")
        self.assertEqual(self.script("notes.sh", "1.2.2").stdout, "Older.\n")
        self.assertEqual(self.script("notes.sh", "1.2").returncode, 1)

    def test_changelog_has_the_sections_that_a_release_needs(self):
        run(RELEASE / "version.sh", "v" + run(RELEASE / "version.sh").stdout.strip())

    def test_checksums_find_a_changed_file(self):
        folder = scratch(self)
        for name in ("b.deb", "a.tar.gz"):
            (folder / name).write_text(name, encoding="utf-8")
        for _ in range(2):
            self.assertEqual(self.script("checksums.sh", folder).returncode, 0)
        lines = (folder / "SHA256SUMS").read_text(encoding="utf-8").splitlines()
        self.assertEqual([line.split()[1] for line in lines], ["a.tar.gz", "b.deb"])
        check = ["sha256sum", "--check", "--strict", "SHA256SUMS"]
        run(*check, cwd=folder)
        (folder / "b.deb").write_text("other", encoding="utf-8")
        self.assertEqual(subprocess.run(check, cwd=folder, capture_output=True).returncode, 1)
        self.assertEqual(self.script("checksums.sh", scratch(self)).returncode, 1)


if __name__ == "__main__":
    unittest.main()
