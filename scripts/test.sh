#!/usr/bin/env bash
# Set up and run the checks and tests; --all runs the slow suites too, one test at a time, for they
# measure and starve real runs. Other words go to pytest.
source "$(dirname "$0")/setup.sh"
bash scripts/setup-tools.sh
chosen=(-m "not slow" -n 2 --dist loadgroup)
if [ "${1:-}" = --all ]; then
  shift
  chosen=()
fi
.venv/bin/ruff check .
.venv/bin/ruff format --check --quiet .
.venv/bin/codespell
.venv/bin/mypy
# one thread a test computes tensors as small as the tests' no slower than two, and many times faster than
# two that wait for each other on a busy machine
export OMP_NUM_THREADS=${OMP_NUM_THREADS:-1}
.venv/bin/pytest -q "${chosen[@]}" "$@"
