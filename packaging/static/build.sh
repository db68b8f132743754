#!/usr/bin/env bash
# Builds the server as one file that needs no library: it is linked statically, with musl as the C
# library. prepare.sh installs what this needs.
#
#   packaging/static/build.sh [amd64|arm64] [FILE]
#
# Without an architecture it is that of this machine. FILE is where the binary is copied to. The
# last line of the output is the path of the binary.

set -euo pipefail
here=$(dirname "$(realpath "${BASH_SOURCE[0]}")")
# shellcheck source=packaging/static/common.sh
source "$here/common.sh"
architecture "${1:-}"

headers=/usr/include/$machine-linux-musl
[ -d "$headers" ] || { echo "$headers is missing: run $here/prepare.sh $name" >&2; exit 1; }

# C code is compiled with the headers of musl instead of those of glibc. rustc brings the library.
own_headers=$("$compiler" -print-file-name=include)
export "CC_${target//-/_}=$compiler"
export "CFLAGS_${target//-/_}=-nostdinc -isystem $headers -isystem $own_headers"
upper=${target^^}
export "CARGO_TARGET_${upper//-/_}_LINKER=$compiler"

cd "$here/../.."
cargo build --locked --release --target "$target" --bin polycast
binary=$(realpath "${CARGO_TARGET_DIR:-target}")/$target/release/polycast

# A dynamic program names its interpreter or the libraries that it needs.
if readelf --program-headers --dynamic --wide "$binary" | grep -E 'INTERP|NEEDED'; then
  echo "$binary is not linked statically" >&2
  exit 1
fi
if [ -n "${2:-}" ]; then
  install -D -m 755 "$binary" "$2"
  binary=$2
fi
echo "$binary"
