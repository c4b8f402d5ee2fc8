#!/usr/bin/env bash
# Install the programs that the tests need, once, as root or with sudo: Debian's Chromium, in which they open
# pages, and ImageMagick, against which they check how pictures are read.
set -euo pipefail
packages=()
command -v chromium >/dev/null || packages+=(chromium fonts-dejavu-core)
convert -version 2>/dev/null | grep '^Version: ImageMagick' >/dev/null || packages+=(imagemagick)
[ "${#packages[@]}" -eq 0 ] && exit

as_root=()
if [ "$(id -u)" -ne 0 ]; then
  as_root=(sudo)
  command -v sudo >/dev/null || {
    echo "setup-tools: the tests need more packages; run as root: apt-get install ${packages[*]}" >&2
    exit 2
  }
fi
command -v apt-get >/dev/null || {
  echo "setup-tools: the tests need the commands chromium and convert (ImageMagick); install them and start again" >&2
  exit 2
}
echo "installing ${packages[*]} with apt-get for the tests (Chromium is about 400 MB, once)" >&2
# wait for another apt-get that may be running
apt=("${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get -qq -o DPkg::Lock::Timeout=300)
"${apt[@]}" update
"${apt[@]}" install -y --no-install-recommends "${packages[@]}" >/dev/null
