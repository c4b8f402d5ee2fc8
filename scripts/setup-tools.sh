#!/usr/bin/env bash
# Install what the tests ask beside Python, as root or by sudo, once: Debian's Chromium, which they open pages
# in, and ImageMagick, by which they check how pictures are read.
set -euo pipefail
packages=()
command -v chromium >/dev/null || packages+=(chromium fonts-dejavu-core)
convert -version 2>/dev/null | grep '^Version: ImageMagick' >/dev/null || packages+=(imagemagick)
[ "${#packages[@]}" -eq 0 ] && exit

as_root=()
if [ "$(id -u)" -ne 0 ]; then
  as_root=(sudo)
  command -v sudo >/dev/null || {
    echo "setup-tools: the tests need more; as root: apt-get install ${packages[*]}" >&2
    exit 2
  }
fi
command -v apt-get >/dev/null || {
  echo "setup-tools: the tests need the commands chromium and convert (ImageMagick's); install them, and start again" >&2
  exit 2
}
echo "installing ${packages[*]} by apt-get, for the tests (Chromium is about 400 MB, once)" >&2
# another apt-get may be at work: wait for it
apt=("${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get -qq -o DPkg::Lock::Timeout=300)
"${apt[@]}" update
"${apt[@]}" install -y --no-install-recommends "${packages[@]}" >/dev/null
