#!/usr/bin/env bash
# `make setup`: installs what building, testing and the demo need, and only what is missing.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

command -v cargo >/dev/null || {
  echo "setup: a Rust toolchain is needed (cargo is not on PATH); rustup installs one" >&2
  exit 1
}

echo "setup: C++ compiler and libclang (RocksDB), OpenSSL's headers (Kafka client), Python and curl (tests, demo)"
tests/apt.sh gcc g++ make procps libc6-dev libclang-dev libssl-dev pkg-config python3 python3-venv curl ca-certificates

# The demo and one test import this machine's own Debian index; a container image comes without it.
if command -v apt-get >/dev/null && ! compgen -G '/var/lib/apt/lists/*_Packages*' >/dev/null; then
  echo "setup: no Debian index on this machine: apt-get update"
  if [ "$(id -u)" = 0 ]; then apt-get -qq update; else sudo apt-get -qq update; fi
fi

echo "setup: TUF clients"
tests/clients/setup.sh
echo "setup: Chromium and what drives it"
tests/console/setup.sh

echo "setup: Kafka"
tests/kafka/setup.sh
echo "setup: S3 server"
tests/s3/setup.sh
echo "setup: loader of docker-compose.yml, promtool"
tests/compose/setup.sh
echo "setup: done"
