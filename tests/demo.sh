#!/usr/bin/env bash
# `make demo`: real targets through the whole path, checked by a stock TUF client. See README.md.
#
# Works in ./demo (TUFLOG_DEMO), which it empties first, but only if it made it: it holds a marker file.
# Exit code 0 if everything was as it should be, otherwise 1 with the first thing that was not.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

tuflog=${CARGO_TARGET_DIR:-target}/debug/tuflog
python=${TUFLOG_CLIENTS_DIR:-.cache/clients}/venv/bin/python
demo=${TUFLOG_DEMO:-demo}
data=$demo/data
marker=$demo/.made-by-tuflog-demo
lists='/var/lib/apt/lists/*_Packages*'
server=

step() { printf '\n\033[1m== %s\033[0m\n' "$*"; }
show() { printf '$ %s\n' "$*"; "$@"; }
fail() { printf '\ndemo FAILED: %s\n' "$*" >&2; exit 1; }
measure() { "$python" tests/demo.py "$demo" "$@" || fail "$1: see above"; }
on_exit() {
  status=$?
  trap - EXIT
  if [ -n "$server" ]; then
    kill "$server" 2>/dev/null || true
    wait "$server" || true
  fi
  if [ "$status" != 0 ] && [ -s "$demo/serve.log" ]; then
    echo "The end of $demo/serve.log:" >&2
    tail -15 "$demo/serve.log" >&2
  fi
  exit "$status"
}

if [ -e "$demo" ] && [ ! -e "$marker" ]; then
  fail "$demo exists and was not made by the demo; move it away or set TUFLOG_DEMO"
fi
if [ -s "$data/http.addr" ] && curl -fs -m 2 -o /dev/null "http://$(cat "$data/http.addr")/healthz"; then
  fail "a server is running on $data; stop it first"
fi
trap on_exit EXIT
rm -rf "$demo"
mkdir -p "$demo/targets/crates"
touch "$marker"

step "1/5  A repository with keys, and a server (embedded log, local store)"
show "$tuflog" init --data "$data"
echo "\$ $tuflog serve --data $data --listen 127.0.0.1:0 --targets $demo/targets   (log: $demo/serve.log)"
"$tuflog" serve --data "$data" --listen 127.0.0.1:0 --targets "$demo/targets" >"$demo/serve.log" 2>&1 &
server=$!
for _ in $(seq 600); do
  kill -0 "$server" 2>/dev/null || { server=; fail "the server ended at once"; }
  [ -s "$data/http.addr" ] && curl -fs -m 2 -o /dev/null "http://$(cat "$data/http.addr")/readyz" && break
  sleep 0.1
done
url=http://$(cat "$data/http.addr" 2>/dev/null || true)
curl -fsS -m 5 -o /dev/null "$url/readyz" || fail "the server did not become ready within a minute"
export TUFLOG_SERVER=$url
# A real client ships with this file; everything else it learns from the server it verifies.
curl -fsS -o "$demo/root.json" "$url/metadata/1.root.json" || fail "the server has no root"
echo "ready at $url"

step "2/5  Real targets: this machine's Debian index, and the crates of the cargo cache"
compgen -G "$lists" >/dev/null || fail "no Debian index in /var/lib/apt/lists: run apt-get update"
# Hard links where possible: the crates are served as target files.
find "${CARGO_HOME:-$HOME/.cargo}/registry/cache" -name '*.crate' -type f -print0 |
  xargs -0 -r sh -c 'cp -lf "$@" "$0" 2>/dev/null || cp --remove-destination "$@" "$0"' "$demo/targets/crates"
measure mark import-started
show "$tuflog" import --format debian --batch-size 1000 --wait published "$lists"
show "$tuflog" import --format dir --batch-size 1000 --wait published "$demo/targets"
measure mark import-ended
echo "the same import again changes nothing, its batches are known:"
show "$tuflog" import --format dir --batch-size 1000 --wait published "$demo/targets"

step "3/5  Add, replace, remove: how soon does a client see it?"
measure changes "$url"

step "4/5  A stock client (python-tuf) looks up and downloads: timestamp, snapshot, bin, target"
measure clients "$url"

step "5/5  Stop, and audit everything from the first record on"
measure collect "$url" "$server"
kill -TERM "$server"
code=0
wait "$server" || code=$?
server=
[ "$code" = 0 ] || fail "the server ended with exit code $code"
echo "the server drained and stopped"
measure mark audit-started
show "$tuflog" audit --data "$data" || fail "the audit found something (exit code $?)"
measure mark audit-ended
"$tuflog" audit --data "$data" --json >"$demo/audit.json"

step "Summary"
measure summary
cat <<EOF

The data stays in $demo. Start the server on it again:
  $tuflog serve --data $data --targets $demo/targets
and try, in another terminal:
  $tuflog status
  $tuflog target $(cat "$demo/example-path")
  $tuflog route $(cat "$demo/example-path")
  $tuflog checkpoints
  curl -s http://127.0.0.1:8080/metadata/timestamp.json
  $tuflog add hello.txt --file README.md --wait published

demo OK
EOF
