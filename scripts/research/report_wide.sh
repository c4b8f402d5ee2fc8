#!/usr/bin/env bash
# Translate the icons that split.csv reserves for reporting (no choice was made on them), and measure how
# close each recipe comes to the truth: scripts/research/report_wide.sh [STRENGTH ...], by default 0.8. Set
# RECIPES (default: sdedit, correct, correct-adain, correct-wide) and LIMIT (default: all 80) to change the
# run. Run it again to resume it, also with more recipes or a higher limit.
source "$(dirname "$0")/../setup.sh"
strengths=("$@")
[ ${#strengths[@]} -gt 0 ] || strengths=(0.8)
recipes=${RECIPES:-sdedit, correct, correct-adain, correct-wide}
out=out/wide
declare -A prompts=(
  [flat]="in flat design style" [3d]="in 3d render style" [ink]="in black and white ink style"
)

for style in "${!prompts[@]}"; do
  mkdir -p "$out/icons/$style"
  grep ',report$' scripts/research/split.csv | cut -d, -f1 | while read -r icon; do
    cp -n "sdcorrect/assets/icons/$style/$icon.png" "$out/icons/$style/"
  done
done

for direction in 3d-to-flat flat-to-ink flat-to-3d ink-to-3d; do
  from=${direction%-to-*} to=${direction#*-to-}
  others=() folders=()
  for style in "${!prompts[@]}"; do
    if [ "$style" != "$to" ]; then others+=(--other-style "${prompts[$style]}"); fi
  done
  for strength in "${strengths[@]}"; do
    folders+=("$out/$direction/$strength")
    .venv/bin/sdcorrect translate "$out/icons/$from" -c configs/benchmark-icons.yaml -p "${prompts[$to]}" \
      --set "source_prompt=${prompts[$from]}" -o "$out/$direction/$strength" --strength "$strength" \
      --limit "${LIMIT:-80}" --set "variants=[$recipes]"
  done
  if [ ${#folders[@]} -gt 1 ]; then others+=(--frontier); fi
  .venv/bin/sdcorrect evaluate "${folders[@]}" --reference "$out/icons/$to" "${others[@]}"
done
