#!/usr/bin/env bash
# apt.sh PACKAGE...: installs those Debian packages that are missing, saying so; with sudo when not root.
set -euo pipefail

missing=()
for package in "$@"; do
  # Installed is: the package itself, or one that provides it.
  [ "$(dpkg-query -W -f='${db:Status-Status}' "$package" 2>/dev/null)" = installed ] || missing+=("$package")
done
[ ${#missing[@]} -gt 0 ] || exit 0

if ! command -v apt-get >/dev/null; then
  echo "needed, and there is no apt-get to install it with: ${missing[*]}" >&2
  exit 1
fi
sudo=()
if [ "$(id -u)" != 0 ]; then
  command -v sudo >/dev/null || { echo "needed: ${missing[*]}; install them as root (no sudo here)" >&2; exit 1; }
  echo "not root: using sudo for apt-get"
  sudo=(sudo)
fi
echo "installing Debian packages: ${missing[*]}"
export DEBIAN_FRONTEND=noninteractive
apt() { "${sudo[@]}" apt-get -qq -o DPkg::Lock::Timeout=300 -o Acquire::Retries=3 "$@"; }
# The machine's package list may be old or empty: refresh it only when it does not serve.
apt install -y --no-install-recommends "${missing[@]}" >/dev/null 2>&1 ||
  { apt update && apt install -y --no-install-recommends "${missing[@]}" >/dev/null; } ||
  { echo "apt-get could not install: ${missing[*]}" >&2; exit 1; }
