#!/usr/bin/env bash
# Fetch the icon sets into build/icons and render them.
set -euo pipefail
cd "$(dirname "$0")/../.."
mkdir -p build/icons
npm install --prefix build/icons --ignore-scripts --no-audit --no-fund \
  @iconify-json/fluent-emoji@1.2.7 @iconify-json/fluent-emoji-flat@1.2.6 \
  @iconify-json/fluent-emoji-high-contrast@1.2.6 @iconify-json/noto@1.2.9 @iconify-json/twemoji@1.2.5
.venv/bin/python scripts/train_mini/render.py
