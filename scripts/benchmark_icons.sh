#!/usr/bin/env bash
# Translate the held-out icons between styles with every method and strength, and measure how close each
# comes to the truth: scripts/benchmark_icons.sh [ICONS [DIRECTION ...]]. The defaults are 40 of the 120 icons
# and flat-to-3d 3d-to-flat flat-to-ink ink-to-3d. Run it again to resume it after an interruption.
source "$(dirname "$0")/setup.sh"
icons=${1:-40}
directions=("${@:2}")
[ ${#directions[@]} -gt 0 ] || directions=(flat-to-3d 3d-to-flat flat-to-ink ink-to-3d)
out=out/benchmark
assets=sdcorrect/assets/icons
declare -A prompts=(
  [flat]="in flat design style" [3d]="in 3d render style" [ink]="in black and white ink style"
)
# recipes that start from the latents of a full inversion have no strength
with_strength='[sdedit, correct, correct-fast, correct-adain, correct-wide]'
without='[ddim, pnp-50, pnp, p2p-refine, masactrl]'

run() { # FROM TO STRENGTH VARIANTS FOLDER
  local others=()
  for style in "${!prompts[@]}"; do
    if [ "$style" != "$2" ]; then others+=(--other-style "${prompts[$style]}"); fi
  done
  .venv/bin/sdcorrect translate "$assets/$1" -c configs/benchmark-icons.yaml -o "$5" --limit "$icons" \
    -p "${prompts[$2]}" --set "source_prompt=${prompts[$1]}" --strength "$3" --set "variants=$4"
  .venv/bin/sdcorrect evaluate "$5" --reference "$assets/$2" "${others[@]}"
}

for direction in "${directions[@]}"; do
  from=${direction%-to-*} to=${direction#*-to-}
  for strength in 0.3 0.5 0.6 0.7 0.8 0.95; do
    run "$from" "$to" "$strength" "$with_strength" "$out/$direction/$strength"
  done
  run "$from" "$to" 1 "$without" "$out/$direction/inverted"
done
.venv/bin/python scripts/benchmark_table.py "$out"
