# Sourced by the other scripts: makes .venv with everything pinned, once, and goes to the project's root.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
stamp=.venv/installed
if ! cmp -s "$stamp" <(cat pyproject.toml scripts/constraints.txt); then
  echo "setting up .venv (a few minutes the first time)" >&2
  python3 -m venv .venv
  .venv/bin/pip install --quiet --disable-pip-version-check -c scripts/constraints.txt -e '.[dev]'
  cat pyproject.toml scripts/constraints.txt >"$stamp"
fi
