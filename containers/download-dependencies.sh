#!/bin/sh
# download-dependencies.sh [DIR=./wheels]: all wheels of an image, that for Kubernetes' API too, each checked
# against its hash, and the project's own.
#
# PYTHON_VERSION (3.12) and ARCH (x86_64, aarch64) are the image's, not this machine's. The one step that needs a network.
set -eu
. "$(dirname "$0")/common.sh"
dir=${1:-./wheels}
arch=${ARCH:-x86_64}
mkdir -p "$dir"
for old in "$dir"/*.whl; do
    [ ! -e "$old" ] || { echo "$dir holds wheels already: name an empty folder" >&2; exit 2; }
done
python -m pip download --quiet --disable-pip-version-check --require-hashes --only-binary=:all: \
    --implementation cp --python-version "${PYTHON_VERSION:-3.12}" \
    --platform "manylinux_2_28_$arch" --platform "manylinux_2_17_$arch" --platform "manylinux2014_$arch" \
    --dest "$dir" --requirement "$ROOT/requirements/kubernetes.lock"
if python -c 'import hatchling' 2>/dev/null; then
    (cd "$ROOT" && python -m hatchling build --target wheel --directory "$(cd "$OLDPWD" && cd "$dir" && pwd)") >/dev/null 2>&1
else
    python -m pip wheel --quiet --no-deps --wheel-dir "$dir" "$ROOT"
fi
cp "$ROOT/requirements/kubernetes.lock" "$dir/requirements.lock"
(cd "$dir" && rm -f .gitignore SHA256SUMS && sha256sum ./* >SHA256SUMS)
echo "$(find "$dir" -name '*.whl' | wc -l) wheels in $dir, $(du -sm "$dir" | cut -f1) MB"
