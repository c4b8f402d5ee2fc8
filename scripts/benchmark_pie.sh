#!/usr/bin/env bash
# PIE-Bench by every method, and the table by editing type with the published figures beside:
#   scripts/benchmark_pie.sh DIR [METHODS [OPTION...]]
# DIR is PIE-Bench's `data` folder, with mapping_file.json and annotation_images; METHODS are recipes with
# commas between, else those of configs/pie-bench.yaml; the options are those of `sdcorrect translate`.
# Results go to out/pie-bench, or where OUT says. Stopped, it goes on from there. With MODEL=mini it runs
# anywhere, as on the set that scripts/make_pie_set.py draws; the networks that measure are then mini's.
source "$(dirname "$0")/setup.sh"
dir=${1:?usage: scripts/benchmark_pie.sh DIR [METHODS [OPTION...]]}
out=${OUT:-out/pie-bench}
translate=() measure=(--metrics structure_distance,psnr_unedited,mse_unedited,ssim_unedited,clip_text,clip_text_edited)
if [ -n "${2:-}" ]; then translate+=(--set "variants=[$2]"); fi
if [ -n "${MODEL:-}" ]; then translate+=(--model "$MODEL"); fi
if [ "${MODEL:-}" = mini ]; then
  translate+=(--set size=64)
  measure+=(--clip mini --structure mini)
else
  measure=(--metrics structure_distance,psnr_unedited,lpips_unedited,mse_unedited,ssim_unedited,clip_text,clip_text_edited)
fi

.venv/bin/sdcorrect translate "$dir/mapping_file.json" -c configs/pie-bench.yaml -o "$out" \
  "${translate[@]}" "${@:3}"
.venv/bin/sdcorrect evaluate "$out" --profile pie-bench --masks "$dir/mapping_file.json" "${measure[@]}"
.venv/bin/python scripts/benchmark_pie_table.py "$out" "$dir/mapping_file.json"
