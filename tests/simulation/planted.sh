#!/bin/sh
# Plants each bug of planted/*.patch (or those named) in a copy of the tree and runs the simulation on it: says which
# seed caught it and how, and fails if one is not caught. By hand: `make planted`, about half a minute a bug.
set -eu
cd "$(dirname "$0")/../.."
export SEEDS="${SEEDS:-3000}"
here=$PWD
target=${CARGO_TARGET_DIR:-$PWD/target}
tree=$target/planted
rm -rf "$tree"
mkdir -p "$tree/tests"
cp -a Cargo.toml Cargo.lock rustfmt.toml src "$tree"
cp -R tests/simulation "$tree/tests"
[ ! -d benches ] || cp -R benches "$tree"
[ ! -d schemas ] || cp -R schemas "$tree"
# A target directory of its own, for cargo cannot tell the trees apart; what is ours in it is not shared.
export CARGO_TARGET_DIR="$tree/target"
mkdir -p "$CARGO_TARGET_DIR/debug"
cp -a "$target/debug/.fingerprint" "$target/debug/build" "$CARGO_TARGET_DIR/debug"
cp -al "$target/debug/deps" "$CARGO_TARGET_DIR/debug"
find "$CARGO_TARGET_DIR/debug" -depth \( -name '*tuflog-*' -o -name 'simulation-*' \) -exec rm -rf {} +
log=$tree/log missed=0
[ $# -gt 0 ] || set -- $(cd tests/simulation/planted && ls ./*.patch)
for name; do
    name=$(basename "$name" .patch)
    patch=$here/tests/simulation/planted/$name.patch
    if ! patch -d "$tree" -p1 -s <"$patch" >"$log"; then
        echo "$name: the patch does not apply" && cat "$log" && exit 2
    fi
    if ! (cd "$tree" && cargo test -q --locked --test simulation --no-run >"$log" 2>&1); then
        echo "$name: does not build" && cat "$log" && exit 2
    fi
    (cd "$tree" && cargo test -q --locked --test simulation whatever_happens >"$log" 2>&1) || true
    caught=$(grep -E '^seed [0-9]+: ' "$log" | sort -n -k2 | head -n 1 | cut -c 1-160)
    if [ -n "$caught" ]; then
        printf '%-28s %s\n' "$name" "$caught"
    else
        printf '%-28s NOT CAUGHT\n' "$name"
        tail -n 3 "$log"
        missed=$((missed + 1))
    fi
    patch -d "$tree" -p1 -s -R <"$patch" >"$log"
done
[ "$missed" -eq 0 ] || { echo "$missed planted bugs were not caught"; exit 1; }
echo "every planted bug was caught"
