#!/usr/bin/env bash
# Packs a static binary, its manual page, completions and example configuration. Equal inputs give
# equal archives, whose times are SOURCE_DATE_EPOCH (by default that of the last commit).
#
#   packaging/release/archive.sh BINARY amd64|arm64 FOLDER
#
# Prints the path of the archive in FOLDER. The binary has to run on this machine.

set -euo pipefail
binary=$(realpath "$1") architecture=$2
mkdir -p "$3"
folder=$(realpath "$3")
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

version=$(packaging/release/version.sh)
name=polycast-$version-linux-$architecture
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
mkdir "$work/$name"
install -m 755 "$binary" "$work/$name/polycast"
packaging/release/documents.sh "$binary" "$work/$name"
install -m 644 LICENSE README.md CHANGELOG.md SECURITY.md packaging/systemd/polycast.service \
  "$work/$name"
install -m 644 packaging/systemd/polycast.sysusers "$work/$name/polycast.sysusers"

epoch=${SOURCE_DATE_EPOCH:-$(git log -1 --format=%ct)}
tar --create --sort=name --mtime="@$epoch" --owner=0 --group=0 --numeric-owner --mode='go=rX,u+w' \
  --directory "$work" "$name" | gzip --no-name -9 >"$folder/$name.tar.gz"
echo "$folder/$name.tar.gz"
