#!/usr/bin/env bash
# Set up and run the checks and tests; --all runs the slow suites too, other words go to pytest.
source "$(dirname "$0")/setup.sh"
marker=(-m "not slow")
if [ "${1:-}" = --all ]; then
  shift
  marker=()
fi
.venv/bin/ruff check .
.venv/bin/ruff format --check --quiet .
.venv/bin/mypy
.venv/bin/pytest -q "${marker[@]}" "$@"
