#!/usr/bin/env bash
# Installs what checks docker-compose.yml, pinned, into .cache/compose (ignored by git): no Docker.
#
#   bin/project     loads a compose file as Docker Compose does and prints it as JSON
#   bin/promtool    checks Prometheus's configuration and rules; the machine's own, or from Debian's package, which is
#                   only unpacked: installed it would run a server
#
# Does nothing when it is there already. Any failure is an exit code other than 0 and a message.
# TUFLOG_COMPOSE_DIR puts it elsewhere.
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
dir=${TUFLOG_COMPOSE_DIR:-$(cd "$here/../.." && pwd)/.cache/compose}

say() { echo "compose: $*"; }
die() { echo "compose: $*" >&2; exit 1; }

mkdir -p "$dir"
dir=$(cd "$dir" && pwd)
# One installation at a time; a second caller waits and then finds everything in place.
exec 9>"$dir/.lock"
flock 9

# What is installed follows from these bytes; the stamp is written last.
stamp=$(cat "$here/setup.sh" "$here/main.go" "$here/go.mod" "$here/go.sum" | sha256sum)
if [ "$(cat "$dir/.stamp" 2>/dev/null)" = "$stamp" ] && "$dir/bin/promtool" --version >/dev/null 2>&1; then
  exit 0
fi
rm -rf "$dir/bin" "$dir/deb" "$dir/.stamp"
mkdir -p "$dir/bin" "$dir/deb"

if promtool=$(command -v promtool); then
  ln -s "$promtool" "$dir/bin/promtool"
else
  command -v apt-get >/dev/null || die "promtool is needed, and there is no apt-get to get it with"
  say "unpacking Debian's promtool"
  download() { (cd "$dir/deb" && apt-get -qq -o Acquire::Retries=3 download prometheus) >"$dir/apt.log" 2>&1; }
  if [ "$(id -u)" = 0 ]; then sudo=; else sudo=sudo; fi
  download || { $sudo apt-get -qq -o DPkg::Lock::Timeout=300 update && download; } ||
    { cat "$dir/apt.log" >&2; die "Debian's package prometheus could not be fetched"; }
  dpkg-deb -x "$dir"/deb/prometheus_*.deb "$dir/deb"
  mv "$dir/deb/usr/bin/promtool" "$dir/bin/"
  rm -rf "$dir/deb"
fi
"$dir/bin/promtool" --version >/dev/null 2>&1 || die "$dir/bin/promtool does not run"

go=$("$here/../go.sh") || die "Go is needed"
say "building the compose file's loader with $("$go" env GOVERSION)"
(cd "$here" && CGO_ENABLED=0 GOTOOLCHAIN=local GOFLAGS=-mod=readonly "$go" build -o "$dir/bin/project" .) ||
  die "the loader could not be built"
echo "$stamp" >"$dir/.stamp"
say "ready"
