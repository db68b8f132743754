#!/usr/bin/env bash
# Writes the bill of materials of the server, in CycloneDX's JSON: all crates that are linked into
# it, with versions and licences. Needs `cargo install --locked cargo-cyclonedx@0.5.9`.
#
#   packaging/release/sbom.sh FOLDER
#
# Prints the path of the file in FOLDER.

set -euo pipefail
mkdir -p "$1"
folder=$(realpath "$1")
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

name=polycast-$(packaging/release/version.sh).cdx
# The program writes beside Cargo.toml only.
trap 'rm -f "$name.json"' EXIT
cargo cyclonedx --quiet --format json --spec-version 1.5 --no-build-deps \
  --target x86_64-unknown-linux-gnu --override-filename "$name"
mv "$name.json" "$folder"
echo "$folder/$name.json"
