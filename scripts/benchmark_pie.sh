#!/usr/bin/env bash
# Run PIE-Bench with every method and print the table by editing type, with the published figures:
#   scripts/benchmark_pie.sh DIR [METHODS [OPTION...]]
# DIR is PIE-Bench's `data` folder, with mapping_file.json and annotation_images; METHODS are recipes separated
# by commas (default: those of configs/pie-bench.yaml); OPTIONs go to `sdcorrect translate`. Results go to
# out/pie-bench or to $OUT. Run it again to resume it. With MODEL=mini it runs on any machine, for example on
# the set that scripts/make_pie_set.py draws, and measures with mini's networks.
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
