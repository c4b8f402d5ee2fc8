# Sourced by the other scripts: creates .venv once, with pinned versions, and changes to the project's root.
# Several scripts may run this at once: one sets up, and the others wait for it.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
stamp=.venv/installed

is_set_up() { cmp -s "$stamp" <(cat pyproject.toml scripts/constraints.txt); }

# lock FLAGS: take the lock on file descriptor 9, which this shell holds until it closes it or ends
lock() { python3 -c "import fcntl; fcntl.flock(9, fcntl.LOCK_EX | $1)" 2>/dev/null; }

# show only the installer's lines that report progress
progress() { awk '/^ *(Downloading|Building|Preparing|Prepared|Installing|Installed)/ {print substr($0, 1, 100); fflush()}'; }

install() {
  local what=(-c scripts/constraints.txt -e '.[dev]')
  if command -v uv >/dev/null; then
    echo "  with uv" >&2
    uv venv --quiet --allow-existing --seed --python python3 .venv &&
      uv pip install --python .venv/bin/python "${what[@]}" && return
    echo "  uv failed; using pip instead" >&2
  fi
  python3 -m venv .venv
  .venv/bin/pip install --disable-pip-version-check "${what[@]}" | progress >&2
}

if ! is_set_up; then
  exec 9>>.venv.lock
  lock fcntl.LOCK_NB || {
    echo "another set-up of .venv is running: waiting for it" >&2
    lock 0 || echo "this file system does not support locks: continuing without one" >&2
  }
  if ! is_set_up; then
    echo "setting up .venv: $(python3 --version), PyTorch and about 120 packages, 2 GB or more; the first time takes minutes" >&2
    install
    cat pyproject.toml scripts/constraints.txt >"$stamp"
    echo ".venv is ready after $SECONDS s" >&2
  fi
  exec 9>&-
fi
