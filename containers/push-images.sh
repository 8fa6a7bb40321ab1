#!/bin/sh
# push-images.sh REGISTRY [TAG=the version] [NAMESPACE=applications]: pushes what build-images.sh built, or bundle.sh
# brought: then first `podman load --input images/…`. PUSH_FLAGS are handed to podman: --cert-dir, --authfile.
set -eu
. "$(dirname "$0")/common.sh"
: "${1:?name the registry to push to}"
name=$(image "$@")
own=$(image localhost "${2:-}" "${3:-}")
if ! "$ENGINE" image exists "$name"; then
    "$ENGINE" image exists "$own" || { echo "neither $name nor $own is here: $ENGINE tag the one that is" >&2; exit 1; }
    "$ENGINE" tag "$own" "$name"
fi
# shellcheck disable=SC2086 # words of a command
"$ENGINE" push ${PUSH_FLAGS:-} "$name"
echo "$name"
