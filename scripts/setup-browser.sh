#!/usr/bin/env bash
# Install the browser that the tests open pages in: Debian's Chromium, as root or by sudo, once.
set -euo pipefail
command -v chromium >/dev/null && exit

as_root=()
if [ "$(id -u)" -ne 0 ]; then
  as_root=(sudo)
  command -v sudo >/dev/null || {
    echo "setup-browser: the tests need Chromium; as root: apt-get install chromium" >&2
    exit 2
  }
fi
command -v apt-get >/dev/null || {
  echo "setup-browser: the tests need Chromium as the command chromium; install it, and start again" >&2
  exit 2
}
echo "installing Chromium by apt-get, for the tests (about 400 MB, once)" >&2
# another apt-get may be at work: wait for it
apt=("${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get -qq -o DPkg::Lock::Timeout=300)
"${apt[@]}" update
"${apt[@]}" install -y --no-install-recommends chromium fonts-dejavu-core >/dev/null
