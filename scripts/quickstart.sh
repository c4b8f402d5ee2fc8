#!/usr/bin/env bash
# Set up and translate the example pictures with the embedded model, on the CPU.
source "$(dirname "$0")/setup.sh"
.venv/bin/sdcorrect translate -c configs/quickstart.yaml "$@"
