#!/usr/bin/env bash
# Installs what build.sh needs beside rustup, on Debian or Ubuntu and as root.
#
#   packaging/static/prepare.sh [amd64|arm64]    the default is the architecture of this machine

set -euo pipefail
# shellcheck source=packaging/static/common.sh
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"
architecture "${1:-}"

packages=("musl-dev:$name")
if [ "$name" = "$host" ]; then
  packages+=(gcc libc6-dev)
else
  packages+=("$cross_compiler")
  dpkg --add-architecture "$name"
fi
export DEBIAN_FRONTEND=noninteractive
apt-get update -q
apt-get install -q -y --no-install-recommends "${packages[@]}"
rustup target add "$target"
