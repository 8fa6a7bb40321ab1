#!/bin/sh
# bundle.sh DIR [REGISTRY] [TAG] [NAMESPACE]: one folder with all that a site without internet needs, to carry in.
#
# images/ wheels/ VERSION SHA256SUMS, and as they are here: manifests/ grafana/dashboards/ alerts/rules/ alerts/runbooks/
# containers/ docs/. WHEELS and ENGINE as for build-images.sh, whose image is taken as it is.
set -eu
. "$(dirname "$0")/common.sh"
dir=${1:?name a folder that is not there yet}
shift
[ ! -e "$dir" ] || { echo "$dir is there already" >&2; exit 2; }
wheels=${WHEELS:-./wheels}
(cd "$wheels" && sha256sum --quiet --check SHA256SUMS)
mkdir -p "$dir/images"
"$ENGINE" save --quiet --format oci-archive --output "$dir/images/ovnwatch-$VERSION.tar" "$(image "$@")"
cp -R "$wheels" "$dir/wheels"
mkdir -p "$dir/grafana" "$dir/alerts"
for each in manifests grafana/dashboards alerts/rules alerts/runbooks docs containers; do
    cp -R "$ROOT/$each" "$dir/$each"
done
cp "$ROOT/pyproject.toml" "$ROOT/README.md" "$ROOT/CHANGELOG.md" "$ROOT/LICENSE" "$dir/"
find "$dir" -name __pycache__ -prune -exec rm -rf {} +
printf '%s\n%s\n' "$VERSION" "$REVISION" >"$dir/VERSION"
(cd "$dir" && find . -type f ! -path ./SHA256SUMS | LC_ALL=C sort | xargs -d '\n' sha256sum >SHA256SUMS)
echo "$dir: ovnwatch $VERSION, $(du -sm "$dir" | cut -f1) MB; note down, to compare: $(sha256sum <"$dir/SHA256SUMS" | cut -c-64)"
