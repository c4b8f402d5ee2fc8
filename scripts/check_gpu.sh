#!/usr/bin/env bash
# Check and measure sdcorrect on a GPU, in 8 minutes: bash scripts/check_gpu.sh [OUT] [--device cpu --small ...]
# Runs the tests that need a GPU, then the core's tests with every model on the GPU, then scripts/check_gpu.py,
# which gets all other arguments. Writes tests-*.txt, gpu.json and table.txt to OUT (out/check-gpu). PYTHON
# selects another interpreter. Tests of compilation take minutes and are left out:
# `pytest -m "gpu and slow" tests/gpu` runs them.
set -uo pipefail
cd "$(dirname "$0")/.."
out=out/check-gpu
case "${1:-}" in "" | -*) ;; *) out=$1; shift ;; esac
mkdir -p "$out"
python=${PYTHON:-.venv/bin/python}
export PYTHONPATH=$PWD:$PWD/tests${PYTHONPATH:+:$PYTHONPATH} HF_HUB_OFFLINE=1 PYTHONUNBUFFERED=1
export OMP_NUM_THREADS=${OMP_NUM_THREADS:-4}
began=$(date +%s) failed=0 device=cuda small= seconds=${CHECK_GPU_SECONDS:-450} testing=75
case " $* " in *" --device cpu "*) device=cpu ;; esac
case " $* " in *" --small "*) small=yes seconds=${CHECK_GPU_SECONDS:-1800} testing=600 ;; esac
workers=$(($(nproc) / 2))
workers=$((workers > 8 ? 8 : workers))
parallel=
if [ $workers -gt 1 ] && "$python" -c "import xdist" 2>/dev/null; then parallel="-n $workers"; fi

interrupted() { # SECONDS COMMAND...; interrupted then, so that it sums up what it has
  timeout --foreground -s INT -k 20 "$@"
}
tests() { # NAME SECONDS WORDS..., into tests-NAME.txt, a line a test as it ends
  local name=$1 limit=$2
  shift 2
  interrupted "$limit" "$python" -m pytest -p no:cacheprovider -v --tb=short -rfE $parallel "$@" \
    >"$out/tests-$name.txt" 2>&1 || failed=1
  echo "tests $name: $(tail -1 "$out/tests-$name.txt")"
  grep -E "^(FAILED|ERROR) " "$out/tests-$name.txt"
}
SDCORRECT_TEST_DEVICE=$device tests gpu $testing -m "gpu and not slow" tests/gpu ${small:+-k "conforms or waits"}
SDCORRECT_TEST_DEVICE=$device tests core $testing -p on_device -m "not slow and not gpu" tests/core \
  ${small:+-k "diffusers_inpainting or img2img_pipeline"}
left=$((seconds - $(date +%s) + began))
interrupted $left "$python" scripts/check_gpu.py "$out" --seconds $left "$@" || failed=1
echo "$(($(date +%s) - began)) s in total"
exit $failed
