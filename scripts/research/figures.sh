#!/usr/bin/env bash
# Make again what depends on the weights of mini: scripts/research/figures.sh STEP ...
# The steps, in this order: icons parts shapes dissection leaderboard pie quickstart fast statistics search
# pictures. All of them take two to three hours on two cores. `pictures` fills docs/images, and the tables of
# the pages; the numbers in sentences are written by hand, from what is in out/figures. Run a step again to
# resume it.
source "$(dirname "$0")/../setup.sh"
python=.venv/bin/python sets=out/benchmark/icons out=out/figures images=docs/images
declare -A prompts=([3d]="in 3d render style" [ink]="in black and white ink style")
mkdir -p "$out"

translate() { .venv/bin/sdcorrect translate "$1" -c configs/benchmark-icons.yaml -o "$2" -p "$3" --set "variants=[$4]"; }
evaluate() { .venv/bin/sdcorrect evaluate "$@" --other-style "in flat design style"; }

icons() {
  INVERTED='' STRENGTHS="0.3 0.5 0.8 1" bash scripts/benchmark_icons.sh 80
  INVERTED="ddim, pnp-50, p2p-refine, masactrl" STRENGTHS='' bash scripts/benchmark_icons.sh 20
  $python scripts/research/equal_style.py out/benchmark >"$out/equal-style.md"
}

parts() { # of the correction
  translate "$sets/flat" "$out/parts" "${prompts[ink]}" "sdedit, correct, correct-attention, correct-features"
  evaluate "$out/parts" --reference "$sets/ink" --other-style "${prompts[3d]}"
}

shapes() {
  $python scripts/research/draw_shapes.py "$out/shapes/source"
  for style in 3d ink; do
    translate "$out/shapes/source" "$out/shapes/$style" "${prompts[$style]}" "sdedit, correct, correct-adain, correct-wide"
  done
  evaluate "$out/shapes/3d" --other-style "${prompts[ink]}"
  evaluate "$out/shapes/ink" --other-style "${prompts[3d]}"
}

dissection() {
  local church=(sdcorrect/assets/pictures/church.png -p "${prompts[3d]}" --strength 0.8)
  .venv/bin/sdcorrect dissect "${church[@]}" -o "$out/church"
  .venv/bin/sdcorrect dissect "${church[@]}" --blocks 4 -o "$out/block-4"
  $python scripts/research/discrepancy_icons.py sdcorrect/assets/icons/flat --limit 40 --strengths 0.3 0.6 0.95 \
    --output "$out/discrepancy"
}

leaderboard() {
  .venv/bin/sdcorrect bench --methods all --evaluate --limit 12 -o "$out/leaderboard" --page docs/leaderboard.md
}

pie() { # with pnp-50's source sampled again, and with p2p-direct-refine's target corrected too
  $python scripts/make_pie_set.py "$out/pie/set" 5
  local changed
  changed=$($python -c 'import json; from sdcorrect.recipes import BUILT_IN
for of, name, source in ("pnp-50", "pnp-sampled", "sampled"), ("p2p-direct-refine", "p2p-corrected", "corrected"):
    print(",", json.dumps(BUILT_IN[of].model_dump(mode="json") | {"name": name, "source": source}))')
  MODEL=mini OUT=$out/pie/made bash scripts/benchmark_pie.sh "$out/pie/set" \
    "p2p-refine, p2p-direct-refine, masactrl, masactrl-direct, pnp-50, pnp-direct $changed"
}

quickstart() {
  bash scripts/quickstart.sh
  .venv/bin/sdcorrect evaluate out/quickstart
  .venv/bin/sdcorrect report out/quickstart
}

fast() {
  $python scripts/research/choose_fast.py sdcorrect/assets/icons/flat --reference sdcorrect/assets/icons/3d \
    -p "${prompts[3d]}" --limit 24 --strengths 0.3 0.5 0.6 0.8 0.95 --seeds 0 1 2 3 --steps 4 5 6 \
    --guided 1 --reuse 0 --rounds 0 -o "$out/fast" | tee "$out/fast.txt"
}

statistics() { $python scripts/research/what_statistics_carry.py | tee "$out/statistics.txt"; }

search() { $python scripts/research/search_wide.py; }

sheet() { $python scripts/research/sheet.py "${@:2}" -o "$images/$1.png"; }
shrink() { # FILE NAME [WIDTH]: figures need few colours
  $python - "$1" "$images/$2.png" "${3:-}" <<'PYTHON'
import sys
from PIL import Image
file, png, width = sys.argv[1:]
figure = Image.open(file).convert("RGB")
if width:
    figure = figure.resize((int(width), figure.height * int(width) // figure.width), Image.Resampling.LANCZOS)
figure.quantize(128).save(png, optimize=True)
PYTHON
}

pictures() {
  local direction made
  for direction in flat-to-3d 3d-to-flat flat-to-ink ink-to-3d; do
    made=out/benchmark/$direction/0.8
    sheet "$direction" "$sets/${direction%-to-*}" "$made"/{sdedit,correct,correct-adain,correct-wide} "$sets/${direction#*-to-}"
  done
  sheet before-after "$sets/flat" out/benchmark/flat-to-3d/0.8/{sdedit,correct,correct-wide} "$sets/3d"
  sheet style "$sets/flat" "$out/parts"/{sdedit,correct,correct-attention,correct-features} "$sets/ink"
  sheet shapes "$out/shapes"/{source,{3d,ink}/{sdedit,correct-adain,correct-wide}}
  .venv/bin/sdcorrect translate sdcorrect/assets/icons/flat -c configs/benchmark-icons.yaml -o "$out/all" --variants correct-wide
  .venv/bin/sdcorrect report "$out/all" --grid "$out/all.png" --columns 10
  shrink "$out/all.png" all-icons 1740
  shrink out/benchmark/curves.png benchmark
  shrink out/benchmark/flat-to-3d/frontier.png frontier
  shrink "$out/block-4/dissect.png" dissect 1000
  shrink "$out/discrepancy/discrepancy.png" discrepancy
  $python scripts/screenshots.py "$out/church/dissect.html" "$out/dissect-page.png" --size 900 1125
  $python scripts/screenshots.py out/quickstart/report.html "$out/report.png"
  shrink "$out/dissect-page.png" dissect-page
  shrink "$out/report.png" report
  $python scripts/research/fill_tables.py README.md docs/benchmark.md docs/beyond-the-paper.md
}

for step in "${@:?which steps: see the head of this file}"; do "$step"; done
