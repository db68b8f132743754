#!/usr/bin/env bash
# Writes SHA256SUMS for all files of a folder into it, in the format of `sha256sum --check`.
#
#   packaging/release/checksums.sh FOLDER

set -euo pipefail
cd "$1"
rm -f SHA256SUMS
files=$(find . -maxdepth 1 -type f -printf '%f\n' | LC_ALL=C sort)
[ -n "$files" ] || { echo "$1 has no files" >&2; exit 1; }
xargs -d '\n' sha256sum <<<"$files" >.sums
mv .sums SHA256SUMS
