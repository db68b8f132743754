#!/usr/bin/env bash
# Prints what CHANGELOG.md says about a version, without the heading.
#
#   packaging/release/notes.sh VERSION

set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

notes=$(awk -v version="$1" '
  /^## / { inside = $2 == version; next }
  inside { print }' CHANGELOG.md)
# Without the empty lines around it.
notes=$(sed -e '/./,$!d' <<<"$notes")
if [ -z "$notes" ]; then
  echo "CHANGELOG.md has no section \"## $1\", or an empty one" >&2
  exit 1
fi
printf '%s\n' "$notes"
