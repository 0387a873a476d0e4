#!/usr/bin/env bash
# Runs the README's commands as they are written: every ```sh block under a line `<!-- run -->`, in order,
# in one shell, in an empty directory, with the built tuflog first on PATH. Only the port is replaced, by a
# free one, so that a server that is running here is left alone.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
readme=$PWD/README.md
target=${CARGO_TARGET_DIR:-target}
bin=$(cd "$target/debug" && pwd)
[ -x "$bin/tuflog" ] || { echo "readme: no $bin/tuflog; run make build" >&2; exit 1; }

scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
port=$(python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])')

{
  echo 'set -euo pipefail'
  # Servers that the README puts into the background end with the script.
  echo "trap 'status=\$?; kill \$(jobs -p) 2>/dev/null || true; wait; exit \$status' EXIT"
  awk '
    /^<!-- run -->$/          { marked = 1; next }
    marked && /^```sh$/       { inside = 1; marked = 0; blocks++; next }
    inside && /^```$/         { inside = 0; next }
    inside                    { print; next }
    marked && NF              { print "readme: `<!-- run -->` without a ```sh block below it" > "/dev/stderr"; exit 1 }
    END                       { if (inside || !blocks) { print "readme: no complete block to run" > "/dev/stderr"; exit 1 } }
  ' "$readme" | sed "s/127\.0\.0\.1:8080/127.0.0.1:$port/g"
} >"$scratch/commands.sh"

mkdir "$scratch/empty"
cd "$scratch/empty"
echo "readme: running $(grep -c . ../commands.sh) lines of README.md on port $port"
if PATH="$bin:$PATH" TUFLOG_LISTEN="127.0.0.1:$port" TUFLOG_SERVER="http://127.0.0.1:$port" \
  timeout --kill-after=10s 300s bash -x ../commands.sh </dev/null >../output 2>&1; then
  echo "readme: ok"
else
  status=$?
  cat ../output >&2
  echo "readme: the commands failed (exit code $status); the last line with a + above is the one" >&2
  exit 1
fi
