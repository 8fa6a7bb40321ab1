#!/bin/sh
# download-dependencies.sh [DIR=./wheels]: all wheels of an image, that for Kubernetes' API too, each checked
# against its hash, and the project's own. What is interrupted leaves nothing in it.
#
# PYTHON_VERSION (3.12) and ARCH (x86_64, aarch64) are the image's, not this machine's. The one step that needs a network.
set -eu
. "$(dirname "$0")/common.sh"
dir=${1:-./wheels}
version=${PYTHON_VERSION:-3.12}
arch=${ARCH:-x86_64}
case $version in 3.1[1-4]) ;; *) echo "PYTHON_VERSION: want 3.11 to 3.14, not $version" >&2; exit 2 ;; esac
case $arch in x86_64 | aarch64) ;; *) echo "ARCH: want x86_64 or aarch64, not $arch" >&2; exit 2 ;; esac
mkdir -p "$dir"
for old in "$dir"/*.whl; do
    [ ! -e "$old" ] || { echo "$dir holds wheels already: name an empty folder" >&2; exit 2; }
done
part=$(mktemp -d "$(cd "$dir" && pwd)/.part.XXXXXX")
trap 'rm -rf "$part"' EXIT
trap 'exit 130' HUP INT TERM
python -m pip download --quiet --disable-pip-version-check --require-hashes --only-binary=:all: \
    --implementation cp --python-version "$version" \
    --platform "manylinux_2_28_$arch" --platform "manylinux_2_17_$arch" --platform "manylinux2014_$arch" \
    --dest "$part" --requirement "$ROOT/requirements/kubernetes.lock"
if python -c 'import hatchling' 2>/dev/null; then
    (cd "$ROOT" && python -m hatchling build --target wheel --directory "$part") >/dev/null 2>&1
else
    python -m pip wheel --quiet --no-deps --wheel-dir "$part" "$ROOT"
fi
cp "$ROOT/requirements/kubernetes.lock" "$part/requirements.lock"
echo "$version $arch" >"$part/PLATFORM"
(cd "$part" && rm -f .gitignore && sha256sum ./* >SHA256SUMS)
mv "$part"/* "$dir/"
echo "$(find "$dir" -name '*.whl' | wc -l) wheels for Python $version on $arch in $dir, $(du -sm "$dir" | cut -f1) MB"
