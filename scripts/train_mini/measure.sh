#!/usr/bin/env bash
# Measure mini in build/mini (or $MINI_RUNS), or the pipeline in a folder:
#   scripts/train_mini/measure.sh OUT [PIPELINE]
# Translates the 120 held-out icons from flat to 3D at strength 0.8. Prints the held-out loss by noise level,
# and how close each recipe comes to the true pictures. Run it again to resume it.
#   scripts/train_mini/measure.sh out/mini/before sdcorrect/assets/mini
#   scripts/train_mini/measure.sh out/mini/now
#   .venv/bin/python scripts/train_mini/measure.py out/mini/before out/mini/now
# sheets.py makes sheets of both.
source "$(dirname "$0")/../setup.sh"
out=${1:?a folder to write to} pipeline=${2:-}
if [ -z "$pipeline" ]; then
  pipeline=$out/pipeline
  [ -d "$pipeline" ] || .venv/bin/python scripts/train_mini/export.py --to "$pipeline"
fi
mkdir -p "$out"
[ -f "$out/loss.json" ] || .venv/bin/python scripts/train_mini/loss.py "$pipeline" "$out/loss.json"
.venv/bin/sdcorrect translate -c configs/benchmark-icons.yaml --model "$pipeline" -o "$out/3d" \
  --set 'variants=[sdedit, correct, correct-fast, correct-adain, correct-wide]'
# every model is measured with the CLIP of the package
.venv/bin/sdcorrect evaluate "$out/3d" --reference sdcorrect/assets/icons/3d --clip mini --structure mini \
  --other-style "in flat design style" --other-style "in black and white ink style"
.venv/bin/python scripts/train_mini/measure.py "$out"
