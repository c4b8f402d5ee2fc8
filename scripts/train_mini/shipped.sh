#!/usr/bin/env bash
# Copy the weights of the package to the folder in which the training stages look for weights, to continue
# from them: scripts/train_mini/shipped.sh [FOLDER]; the default is build/mini. Existing files are kept.
set -euo pipefail
cd "$(dirname "$0")/../.."
runs=${1:-build/mini}
mkdir -p "$runs"
for part in vae unet clip; do cp -r -n "sdcorrect/assets/mini/$part" "$runs"; done
cp -r -n sdcorrect/assets/mini/clip/. "$runs/clip-with-colours"
