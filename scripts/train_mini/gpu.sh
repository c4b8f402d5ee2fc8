#!/usr/bin/env bash
# Continue training mini's VAE and U-Net on one GPU (or the CPU) for MINUTES, and print the metrics:
#   scripts/train_mini/gpu.sh MINUTES [PIECES]
# Starts from the averaged weights in build/gpu (the first time, those of the package) and saves the new ones
# there. If you give a folder PIECES, they are also written there, in files under 16 MB:
#   cat PIECES/mini.tar.* | tar -x -C build/gpu
# Needs the output of fetch.sh (build/icons/icons.npz, more.npz and node_modules/emojibase-data) but no network.
# PYTHON is an interpreter with torch, diffusers and transformers; the default is .venv/bin/python.
set -euo pipefail
cd "$(dirname "$0")/../.."
minutes=${1:?minutes to train} pieces=${2:-}
export MINI_RUNS=build/gpu
bash scripts/train_mini/shipped.sh "$MINI_RUNS"
# averaged weights come without optimiser state, so the optimiser starts again
rm -f "$MINI_RUNS"/{vae,unet}.pt
learn() { # STAGE SHARE
  "${PYTHON:-.venv/bin/python}" "scripts/train_mini/$1.py" --from "$MINI_RUNS/$1" \
    --minutes "$(awk "BEGIN { print $minutes * $2 }")" | tee -a "$MINI_RUNS/figures.txt"
}
learn vae 0.15
learn unet 0.85
if [ -n "$pieces" ]; then
  mkdir -p "$pieces"
  tar -c -C "$MINI_RUNS" vae unet figures.txt | split --bytes 15M - "$pieces/mini.tar."
fi
