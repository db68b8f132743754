#!/usr/bin/env bash
# Prints the version in Cargo.toml. With a tag, also checks that the tag is v and this version, and
# that CHANGELOG.md has a section for it.
#
#   packaging/release/version.sh [TAG]

set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

version=$(sed -n '/^\[package\]/,/^\[/s/^version = "\(.*\)"$/\1/p' Cargo.toml)
[ -n "$version" ] || { echo "Cargo.toml has no version" >&2; exit 1; }
tag=${1-v$version}
if [ "$tag" != "v$version" ]; then
  echo "the tag is $tag, but Cargo.toml has version $version" >&2
  exit 1
fi
[ $# -eq 0 ] || packaging/release/notes.sh "$version" >/dev/null
echo "$version"
