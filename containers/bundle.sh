#!/bin/sh
# bundle.sh DIR [REGISTRY] [TAG] [NAMESPACE]: one folder with all that a site without internet needs, to carry in. It is
# there as a whole or not at all.
#
# images/ wheels/ VERSION SHA256SUMS, and as they are here: manifests/ grafana/dashboards/ alerts/rules/ alerts/runbooks/
# containers/ docs/; but not what a bastion that runs from here has in containers/, tokens and passwords.
# WHEELS and ENGINE as for build-images.sh, whose image is taken as it is.
set -eu
. "$(dirname "$0")/common.sh"
dir=${1:?name a folder that is not there yet}
dir=${dir%/}
shift
[ ! -e "$dir" ] || { echo "$dir is there already" >&2; exit 2; }
wheels=${WHEELS:-./wheels}
(cd "$wheels" && sha256sum --quiet --check SHA256SUMS)
mkdir -p "$(dirname "$dir")"
part=$(mktemp -d "$dir.XXXXXX")
trap 'rm -rf "$part"' EXIT
trap 'exit 130' HUP INT TERM
chmod 755 "$part"
mkdir "$part/images" "$part/grafana" "$part/alerts"
"$ENGINE" save --quiet --format oci-archive --output "$part/images/ovnwatch-$VERSION.tar" "$(image "$@")"
cp -R "$wheels" "$part/wheels"
for each in manifests grafana/dashboards alerts/rules alerts/runbooks docs containers; do
    cp -R "$ROOT/$each" "$part/$each"
done
(cd "$part/containers" && rm -rf .env config.env secrets targets)
cp "$ROOT/pyproject.toml" "$ROOT/README.md" "$ROOT/CHANGELOG.md" "$ROOT/LICENSE" "$part/"
find "$part" -name __pycache__ -prune -exec rm -rf {} +
printf '%s\n%s\n' "$VERSION" "$REVISION" >"$part/VERSION"
(cd "$part" && find . -type f ! -path ./SHA256SUMS | LC_ALL=C sort | xargs -d '\n' sha256sum >SHA256SUMS)
mv "$part" "$dir"
echo "$dir: ovnwatch $VERSION, $(du -sm "$dir" | cut -f1) MB; note down, to compare: $(sha256sum <"$dir/SHA256SUMS" | cut -c-64)"
