#!/bin/sh
# verify-bundle.sh [DIR=the bundle this is in] [SUM]: is the bundle whole, and nothing but itself? 0, or 1 with what is wrong.
#
# SUM is what bundle.sh printed: with it a forged SHA256SUMS is found out, too.
set -eu
dir=${1:-$(dirname "$0")/..}
cd "$dir"
wrong=0
if [ -n "${2:-}" ] && [ "$(sha256sum <SHA256SUMS | cut -c-64)" != "$2" ]; then
    echo "SHA256SUMS is not the one that was noted down" >&2
    wrong=1
fi
sha256sum --quiet --strict --check SHA256SUMS || wrong=1
listed=$(cut -c67- SHA256SUMS | LC_ALL=C sort)
found=$(find . ! -type d ! -path ./SHA256SUMS | LC_ALL=C sort)
if [ "$listed" != "$found" ]; then
    echo "files that are not listed, or not there:" >&2
    printf '%s\n%s\n' "$listed" "$found" | LC_ALL=C sort | uniq -u >&2
    wrong=1
fi
[ "$wrong" = 1 ] || echo "ovnwatch $(head -n 1 VERSION): whole"
exit "$wrong"
