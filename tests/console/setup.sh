#!/usr/bin/env bash
# Installs what the test of the console drives a browser with, pinned, into .cache/console (ignored by git):
#
#   bin/chromium   the machine's own Chromium or Chrome, which is installed if there is none
#   bin/node       the Node of tests/clients
#   node_modules/  puppeteer-core: run tests/console/drive.js with bin/node
#
# Does nothing when they are there already. Any failure is an exit code other than 0 and a message.
# TUFLOG_CHROMIUM names the browser, TUFLOG_CONSOLE_DIR puts all of it elsewhere.
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
cache=$(cd "$here/../.." && pwd)/.cache
dir=${TUFLOG_CONSOLE_DIR:-$cache/console}
clients=${TUFLOG_CLIENTS_DIR:-$cache/clients}

say() { echo "console: $*"; }
die() { echo "console: $*" >&2; exit 1; }

"$here/../clients/setup.sh" # brings Node
mkdir -p "$dir/bin"
# One installation at a time; a second caller waits and then finds everything in place.
exec 9>"$dir/.lock"
flock 9

# A snap sees neither our files nor /tmp; Ubuntu's chromium-browser only installs one.
is_snap() {
  local program
  program=$(readlink -f "$1")
  [[ $program == /snap/* ]] || head -c 4096 "$program" | grep -aq /snap/
}
find_chromium() {
  local name program
  for name in ${TUFLOG_CHROMIUM:-chromium chromium-browser google-chrome google-chrome-stable}; do
    program=$(command -v "$name") || continue
    if ! is_snap "$program"; then
      echo "$program"
      return
    fi
  done
}
chromium=$(find_chromium)
if [ -z "$chromium" ]; then
  "$here/../apt.sh" chromium || true
  chromium=$(find_chromium)
fi
[ -n "$chromium" ] ||
  die "no Chromium that is not a snap: install the Debian package chromium or google-chrome-stable, or name one in TUFLOG_CHROMIUM"

stamp=$(cat "$here/setup.sh" "$here/package-lock.json" <(echo "$chromium") | sha256sum)
works() { (cd "$dir" && bin/node -e 'require("puppeteer-core")' && bin/chromium --version) >/dev/null 2>&1; }
if [ "$(cat "$dir/.stamp" 2>/dev/null)" = "$stamp" ] && works; then
  exit 0
fi

say "installing puppeteer-core into $dir/node_modules"
rm -rf "$dir/bin" "$dir/node_modules" "$dir/.stamp"
mkdir "$dir/bin"
ln -s "$chromium" "$dir/bin/chromium"
ln -s "$(readlink -f "$clients/bin/node")" "$dir/bin/node"
cp "$here/package.json" "$here/package-lock.json" "$dir/"
export PATH="$PATH:$clients/venv/bin" # npm of the Node that was installed there, if none was here
(cd "$dir" && npm ci --ignore-scripts --no-audit --no-fund --loglevel=error) >"$dir/npm.log" 2>&1 ||
  { cat "$dir/npm.log" >&2; die "puppeteer-core could not be installed"; }

works || die "installed, but $chromium or puppeteer-core cannot be started from $dir"
echo "$stamp" >"$dir/.stamp"
say "ready"
