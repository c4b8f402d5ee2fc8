#!/usr/bin/env bash
# Set up and run the checks and tests; --all runs the slow suites too, other words go to pytest.
source "$(dirname "$0")/setup.sh"
bash scripts/setup-browser.sh
marker=(-m "not slow")
if [ "${1:-}" = --all ]; then
  shift
  marker=()
fi
.venv/bin/ruff check .
.venv/bin/ruff format --check --quiet .
.venv/bin/mypy
# one thread computes tensors as small as the tests' no slower than two, and many times faster than
# two that wait for each other on a busy machine
export OMP_NUM_THREADS=${OMP_NUM_THREADS:-1}
.venv/bin/pytest -q "${marker[@]}" "$@"
