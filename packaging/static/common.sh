# shellcheck shell=bash
# Sourced by the scripts of this folder. Architectures have Debian's names, which are also Docker's.

# architecture NAME: sets the names that the toolchains use for an architecture; without a NAME,
# for the one of this machine.
architecture() {
  host=$(dpkg --print-architecture)
  name=${1:-$host}
  case $name in
    amd64) machine=x86_64 cross_compiler=gcc-x86-64-linux-gnu ;;
    arm64) machine=aarch64 cross_compiler=gcc-aarch64-linux-gnu ;;
    *)
      echo "the architecture is amd64 or arm64, not $name" >&2
      exit 2
      ;;
  esac
  target=$machine-unknown-linux-musl
  compiler=$machine-linux-gnu-gcc
  # Set for the calling script.
  : "$cross_compiler" "$target" "$compiler"
}
