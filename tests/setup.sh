#!/usr/bin/env bash
# Installs what the tests need and this machine lacks: ffmpeg, Chromium, small tools, what makes
# networks of namespaces, and schemathesis (in a folder of its own below `target`). Does nothing,
# and asks for nothing, where all of them are there.
set -euo pipefail
cd "$(dirname "$0")/.."

schemathesis_version=4.32.5
schemathesis_dir="${CARGO_TARGET_DIR:-target}/schemathesis"
has_schemathesis() {
  [ -n "${ASTRAL_TESTS_SCHEMATHESIS:-}" ] ||
    [ "$(cat "$schemathesis_dir/version" 2>/dev/null)" = "$schemathesis_version" ]
}

missing=()
command -v ffmpeg >/dev/null || missing+=(ffmpeg)
# For networks of namespaces, and README's lines, each on a machine of its own.
if [ "$(uname)" = Linux ]; then
  command -v ip >/dev/null || [ -x /usr/sbin/ip ] || missing+=(iproute2)
  command -v nft >/dev/null || [ -x /usr/sbin/nft ] || missing+=(nftables)
fi
if ! command -v chromium >/dev/null && ! command -v chromium-browser >/dev/null &&
  ! command -v google-chrome >/dev/null && [ -z "${ASTRAL_TESTS_CHROMIUM:-}" ]; then
  # Without a font the page's words are empty boxes on its screenshots.
  missing+=(chromium fonts-dejavu-core)
fi
# For the service's unit.
command -v systemd-analyze >/dev/null || missing+=(systemd)
if ! has_schemathesis && ! python3 -c 'import venv, ensurepip' 2>/dev/null; then
  missing+=(python3 python3-venv)
fi

if [ ${#missing[@]} -gt 0 ]; then
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
fi

if ! has_schemathesis; then
  echo "tests/setup.sh: installing schemathesis $schemathesis_version"
  rm -rf "$schemathesis_dir"
  python3 -m venv "$schemathesis_dir"
  "$schemathesis_dir/bin/pip" install --quiet --disable-pip-version-check \
    "schemathesis==$schemathesis_version"
  # Last: a folder without it is begun anew.
  echo "$schemathesis_version" >"$schemathesis_dir/version"
fi
