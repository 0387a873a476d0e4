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

go=$("$here/../go.sh") || die "Go is needed"
say "building $server with $("$go" env GOVERSION), which takes some minutes"
CGO_ENABLED=0 GOTOOLCHAIN=local GOBIN=$dir/bin "$go" install "$server" >"$dir/build.log" 2>&1 ||
  { tail -n 20 "$dir/build.log" >&2; die "versitygw could not be built"; }

works || die "installed, but $dir/bin/versitygw does not run"
echo "$stamp" >"$dir/.stamp"
say "ready"
