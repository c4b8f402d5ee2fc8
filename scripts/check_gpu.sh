#!/usr/bin/env bash
# Check and measure sdcorrect on a GPU, in 8 minutes: bash scripts/check_gpu.sh [OUT] [--device cpu --small ...]
# Runs the tests that need a GPU, then the core's tests with every model on the GPU, then scripts/check_gpu.py,
# which gets all other arguments. Writes tests-*.txt, gpu.json and table.txt to OUT (out/check-gpu). PYTHON
# selects another interpreter.
set -uo pipefail
cd "$(dirname "$0")/.."
out=out/check-gpu
case "${1:-}" in "" | -*) ;; *) out=$1; shift ;; esac
mkdir -p "$out"
python=${PYTHON:-.venv/bin/python}
export PYTHONPATH=$PWD:$PWD/tests${PYTHONPATH:+:$PYTHONPATH} HF_HUB_OFFLINE=1 OMP_NUM_THREADS=${OMP_NUM_THREADS:-4}
began=$(date +%s) failed=0 device=cuda small=
case " $* " in *" --device cpu "*) device=cpu ;; esac
case " $* " in *" --small "*) small=yes ;; esac

tests() { # NAME SECONDS WORDS..., into tests-NAME.txt
  local name=$1 limit=$2
  shift 2
  timeout "$limit" "$python" -m pytest -p no:cacheprovider -q --tb=line -rf "$@" >"$out/tests-$name.txt" 2>&1 || failed=1
  echo "tests $name: $(tail -1 "$out/tests-$name.txt")"
}
SDCORRECT_TEST_DEVICE=$device tests gpu 120 -m gpu tests/gpu ${small:+-k "conforms or waits"}
if [ -z "$small" ]; then
  SDCORRECT_TEST_DEVICE=$device tests core 90 -p on_device -m "not slow and not gpu" tests/core
fi
spent=$(($(date +%s) - began))
"$python" scripts/check_gpu.py "$out" --seconds $((${CHECK_GPU_SECONDS:-470} - spent)) "$@" || failed=1
echo "$(($(date +%s) - began)) s in total"
exit $failed
