#!/usr/bin/env bash
# Installs what the tests need and this machine lacks: ffmpeg, Chromium, and what makes
# networks of namespaces. Does nothing, and asks for nothing, where all are there.
set -euo pipefail

missing=()
command -v ffmpeg >/dev/null || missing+=(ffmpeg)
if [ "$(uname)" = Linux ]; then
  command -v ip >/dev/null || [ -x /usr/sbin/ip ] || missing+=(iproute2)
  command -v nft >/dev/null || [ -x /usr/sbin/nft ] || missing+=(nftables)
fi
if ! command -v chromium >/dev/null && ! command -v chromium-browser >/dev/null &&
  ! command -v google-chrome >/dev/null && [ -z "${ASTRAL_TESTS_CHROMIUM:-}" ]; then
  # Without a font the page's words are empty boxes on its screenshots.
  missing+=(chromium fonts-dejavu-core)
fi
if [ ${#missing[@]} -eq 0 ]; then
  exit 0
fi

if ! command -v apt-get >/dev/null; then
  echo "tests/setup.sh: please install: ${missing[*]} (no apt-get here)" >&2
  exit 1
fi
as_root=()
if [ "$(id -u)" -ne 0 ]; then
  if ! command -v sudo >/dev/null; then
    echo "tests/setup.sh: run as root, or install: ${missing[*]}" >&2
    exit 1
  fi
  as_root=(sudo)
  # No password prompt where nobody could answer it.
  if [ -n "${CI:-}" ] || [ ! -t 0 ]; then as_root+=(--non-interactive); fi
fi
echo "tests/setup.sh: installing ${missing[*]}"
"${as_root[@]}" apt-get -o DPkg::Lock::Timeout=300 update
"${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends \
  -o DPkg::Lock::Timeout=300 "${missing[@]}" </dev/null
