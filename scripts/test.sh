#!/usr/bin/env bash
# Set up and run the checks and tests. --all also runs the slow tests, and runs all tests one at a time,
# because the slow ones measure and starve real runs. Other arguments go to pytest.
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
# for tensors as small as the tests', one thread is as fast as two, and many times faster than two that
# wait for each other on a busy machine
export OMP_NUM_THREADS=${OMP_NUM_THREADS:-1}
.venv/bin/pytest -q "${chosen[@]}" "$@"
