#!/usr/bin/env bash
# Makes the Debian package for the architecture of this machine. Needs
# `cargo install --locked cargo-deb@3.8.0 --no-default-features`, dpkg-dev and xz-utils.
#
#   packaging/deb/build.sh FOLDER [--no-build] [OPTION...]
#
# --no-build packs the optimised server that has been built already. Other options are passed to
# `cargo deb`; --fast compresses less.
#
# Prints the path of the package in FOLDER.

set -euo pipefail
mkdir -p "$1"
folder=$(realpath "$1")
shift
build=true options=()
for option in "$@"; do
  if [ "$option" = --no-build ]; then build=false; else options+=("$option"); fi
done
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
target=$(realpath -m "${CARGO_TARGET_DIR:-target}")

! $build || cargo build --locked --release --bin polycast
version=$(packaging/release/version.sh)
export SOURCE_DATE_EPOCH=${SOURCE_DATE_EPOCH:-$(git log -1 --format=%ct)}

# The files that Cargo.toml names below `target/release`, which cargo-deb looks up in the real
# target directory.
files=$target/release/deb
rm -rf "$files"
packaging/release/documents.sh "$target/release/polycast" "$files"
gzip --no-name -9 "$files/polycast.1"
gzip --no-name -9 <CHANGELOG.md >"$files/changelog.gz"
gzip --no-name -9 >"$files/changelog.Debian.gz" <<EOF
polycast ($version-1) stable; urgency=medium

  * /usr/share/doc/polycast/changelog.gz tells what is new.

 -- $(sed -n 's/^maintainer = "\(.*\)"$/\1/p' Cargo.toml)  $(date --utc --rfc-email --date "@$SOURCE_DATE_EPOCH")
EOF

# Debian 12 and Ubuntu 22.04 have a systemd that does not know the type notify-reload.
sed "s|^Type=notify-reload\$|Type=notify\nExecReload=/bin/kill -HUP \$MAINPID|" \
  packaging/systemd/polycast.service >"$files/polycast.service"
grep -q '^ExecReload=' "$files/polycast.service" || {
  echo "packaging/systemd/polycast.service has no Type=notify-reload" >&2
  exit 1
}

# The package's configuration listens on another address.
address=$(sed -n 's/^address = "\(.*\)"$/\1/p' packaging/deb/polycast.toml)
sed "s|^ListenStream=.*|ListenStream=$address|" packaging/systemd/polycast.socket \
  >"$files/polycast.socket"
grep -q "^ListenStream=[0-9.]*:[0-9]*\$" "$files/polycast.socket" || {
  echo "packaging/deb/polycast.toml has no address for the socket" >&2
  exit 1
}

cargo deb --quiet --locked --no-build --no-strip --output "$folder/" \
  "${options[@]}"
echo "$folder/polycast_$version-1_$(dpkg --print-architecture).deb"
