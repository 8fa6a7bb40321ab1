# What the scripts here share: read by them, not run. REGISTRY, TAG and NAMESPACE are their three arguments.
ROOT=$(cd "$(dirname "$0")/.." && pwd)
VERSION=$(sed -n 's/^version = "\(.*\)"$/\1/p' "$ROOT/pyproject.toml")
REVISION=$(git -C "$ROOT" rev-parse HEAD 2>/dev/null || echo unknown)
ENGINE=${ENGINE:-podman}

# The Python that is there: the project's own, else the system's.
python() {
    if [ -x "$ROOT/.venv/bin/python" ]; then
        "$ROOT/.venv/bin/python" "$@"
    else
        python3 "$@"
    fi
}

image() { echo "${1:-localhost}/${3:-applications}/ovnwatch:${2:-$VERSION}"; }
