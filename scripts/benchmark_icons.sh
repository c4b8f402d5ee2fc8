#!/usr/bin/env bash
# Translate held-out icons between styles with every method and strength, and measure how close each comes to
# the truth: scripts/benchmark_icons.sh [ICONS [DIRECTION ...]]. The icons are those that split.csv reserves
# for reporting: nothing was chosen on them. The defaults are 40 of the 80 icons, and flat-to-3d 3d-to-flat
# flat-to-ink ink-to-3d. STRENGTHS, RECIPES and INVERTED change what is run. Run it again to resume it, also
# with more of anything.
source "$(dirname "$0")/setup.sh"
icons=${1:-40}
directions=("${@:2}")
[ ${#directions[@]} -gt 0 ] || directions=(flat-to-3d 3d-to-flat flat-to-ink ink-to-3d)
out=out/benchmark
declare -A prompts=(
  [flat]="in flat design style" [3d]="in 3d render style" [ink]="in black and white ink style"
)
recipes=${RECIPES-sdedit, correct, correct-fast, correct-adain, correct-wide}
# recipes that start from the latents of a full inversion have no strength
inverted=${INVERTED-ddim, pnp-50, pnp, p2p-refine, masactrl}

for style in "${!prompts[@]}"; do
  mkdir -p "$out/icons/$style"
  grep ',report$' scripts/research/split.csv | cut -d, -f1 | while read -r icon; do
    cp -n "sdcorrect/assets/icons/$style/$icon.png" "$out/icons/$style/"
  done
done

translate() { # FROM TO STRENGTH VARIANTS FOLDER
  .venv/bin/sdcorrect translate "$out/icons/$1" -c configs/benchmark-icons.yaml -o "$5" --limit "$icons" \
    -p "${prompts[$2]}" --set "source_prompt=${prompts[$1]}" --strength "$3" --set "variants=[$4]"
}

for direction in "${directions[@]}"; do
  from=${direction%-to-*} to=${direction#*-to-}
  for strength in ${STRENGTHS-0.3 0.5 0.6 0.7 0.8 1}; do
    translate "$from" "$to" "$strength" "$recipes" "$out/$direction/$strength"
  done
  [ -z "$inverted" ] || translate "$from" "$to" 1 "$inverted" "$out/$direction/inverted"
  folders=("$out/$direction"/*/) others=()
  for style in "${!prompts[@]}"; do
    if [ "$style" != "$to" ]; then others+=(--other-style "${prompts[$style]}"); fi
  done
  .venv/bin/sdcorrect evaluate "${folders[@]%/}" --frontier --reference "$out/icons/$to" "${others[@]}"
done
.venv/bin/python scripts/benchmark_table.py "$out"
