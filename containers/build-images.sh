#!/bin/sh
# build-images.sh [REGISTRY=localhost] [TAG=the version] [NAMESPACE=applications]: builds the image, without a network.
#
# BASE      the image to build on, by digest where it is not your own: NAME@sha256:…
# RUN_BASE  one to run on, if not the same
# WHEELS    what download-dependencies.sh made (./wheels)
# ENGINE    podman or buildah; BUILD_FLAGS are handed to it
set -eu
. "$(dirname "$0")/common.sh"
wheels=${WHEELS:-./wheels}
: "${BASE:?name the image to build on: BASE=NAME@sha256:…}"
(cd "$wheels" && sha256sum --quiet --check SHA256SUMS)
name=$(image "$@")
# shellcheck disable=SC2086 # words of a command
"$ENGINE" build --network none ${BUILD_FLAGS:-} --build-arg BASE="$BASE" --build-arg RUN_BASE="${RUN_BASE:-$BASE}" \
    --build-arg VERSION="$VERSION" --build-arg REVISION="$REVISION" \
    --file "$ROOT/containers/Containerfile" --tag "$name" "$wheels"
echo "$name"
