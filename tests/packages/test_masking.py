"""Masking on processors that this machine does not have: the tests of `src/simd`, compiled for them
and run by qemu. 64-bit Arm has vectors of its own, and 32-bit x86 uses none."""

import shutil
import unittest

from support import ROOT, run, scratch


class Masking(unittest.TestCase):
    def passes_for(self, target, emulator):
        if not shutil.which(emulator):
            self.skipTest(f"{emulator} is missing: install qemu-user")
        binary = scratch(self) / "simd"
        run(
            "rustc", "--edition", "2024", "--test", "-D", "warnings", "-O",
            "-C", "debug-assertions", "-C", "linker=rust-lld", "--target", target,
            ROOT / "src/simd/mod.rs", "-o", binary,
        )
        output = run(emulator, binary).stdout
        self.assertRegex(output, r"test result: ok\. [1-9]\d* passed; 0 failed; 0 ignored")
        self.assertIn("mask_has_the_vectors_of_the_target_among_its_versions ... ok", output)

    def test_neon_masks_as_the_specification_says(self):
        self.passes_for("aarch64-unknown-linux-musl", "qemu-aarch64")

    def test_a_processor_without_vectors_masks_as_the_specification_says(self):
        self.passes_for("i686-unknown-linux-musl", "qemu-i386")


if __name__ == "__main__":
    unittest.main()
