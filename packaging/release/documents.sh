#!/usr/bin/env bash
# Writes the manual page, the completions and the example configuration of a binary into a folder.
# The binary has to run on this machine.
#
#   packaging/release/documents.sh BINARY FOLDER

set -euo pipefail
binary=$(realpath "$1")
mkdir -p "$2"
cd "$2"

"$binary" man >polycast.1
"$binary" completions bash >polycast.bash
"$binary" completions fish >polycast.fish
"$binary" completions zsh >_polycast
"$binary" config example >polycast.example.toml
