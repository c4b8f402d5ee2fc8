#!/usr/bin/env bash
# Put the weights that come with the package where the stages look for each other's, to go on from them:
# scripts/train_mini/shipped.sh [FOLDER], build/mini by default. What lies there already is left.
set -euo pipefail
cd "$(dirname "$0")/../.."
runs=${1:-build/mini}
mkdir -p "$runs"
for part in vae unet clip; do cp -r -n "sdcorrect/assets/mini/$part" "$runs"; done
cp -r -n sdcorrect/assets/mini/clip/. "$runs/clip-with-colours"
