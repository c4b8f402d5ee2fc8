#!/usr/bin/env bash
# Build the wheel and the source archive into dist, install the wheel into a new environment, and run it outside the
# project: check_wheel.sh [TAG]. For a release TAG, check first that tag, version and changelog agree.
set -euo pipefail
cd "$(dirname "$0")/.."
version=$(sed -n 's/^__version__ = "\(.*\)"$/\1/p' sdcorrect/__init__.py)
if [ -n "${1:-}" ]; then
  [ "$1" = "v$version" ] || {
    echo "check_wheel: the tag is $1, and sdcorrect/__init__.py has $version" >&2
    exit 1
  }
  grep -qx "## $version" CHANGELOG.md || {
    echo "check_wheel: CHANGELOG.md has no heading '## $version' (without 'unreleased')" >&2
    exit 1
  }
fi
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/build"
"$work/build/bin/pip" install --quiet build
rm -rf dist
"$work/build/bin/python" -m build --outdir dist .
python3 -m venv "$work/installed"
"$work/installed/bin/pip" install --quiet dist/*.whl
cd "$work"
PATH=$work/installed/bin:$PATH
sdcorrect --version | grep -qx "sdcorrect $version"
sdcorrect init quickstart
sdcorrect translate -c quickstart.yaml --limit 1
echo "check_wheel: $version builds, installs and runs: $(ls "$OLDPWD/dist")"
