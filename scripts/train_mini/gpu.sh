#!/usr/bin/env bash
# Go on with mini's VAE and U-Net on one card (or the CPU) for so many minutes, and tell the figures:
#   scripts/train_mini/gpu.sh MINUTES [PIECES]
# Begins with the averaged weights in build/gpu, at first those that come with the package, and leaves the
# new ones there. With a folder PIECES they come there too, in files under 16 MB:
#   cat PIECES/mini.tar.* | tar -x -C build/gpu
# Needs what fetch.sh made: build/icons/icons.npz, more.npz and node_modules/emojibase-data, no network.
# PYTHON is an interpreter with torch, diffusers and transformers, .venv/bin/python by default.
set -euo pipefail
cd "$(dirname "$0")/../.."
minutes=${1:?minutes to train} pieces=${2:-}
export MINI_RUNS=build/gpu
bash scripts/train_mini/shipped.sh "$MINI_RUNS"
# to go on from averaged weights alone is to begin anew with the optimiser
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
