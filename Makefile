# Everything needs a Rust toolchain and a Debian-like system; `make setup` installs the rest.
# CARGO_TARGET_DIR is honoured. One profile (dev, optimised) serves demo, tests and production.

.PHONY: help setup build demo test planted kafka

help: ## what can be made
	@sed -n 's/^\([a-z]*\):.*## /\1\t/p' Makefile

setup: ## install what is missing: compilers, and the TUF clients, Kafka and S3 server of the tests
	@tests/setup.sh

build: setup ## build the binary, debug/tuflog in the target directory
	cargo build --locked

demo: build ## the whole path on real targets, in ./demo
	@tests/demo.sh

test: setup ## format, lints, all tests, and the README's commands as written
	cargo fmt --check
	cargo clippy --locked --all-targets -- -D warnings
	cargo build --locked
	cargo test --locked
	tests/readme.sh

planted: setup ## plant each known bug in a copy of the tree; the simulation must catch it
	tests/simulation/planted.sh

NODES ?= 1
DIR ?= ./.cache/kafka-data
PORT ?= 9092
kafka: ## a real Kafka in the foreground, no Docker; NODES=1|3, PORT=9092, data in DIR=./.cache/kafka-data
	@tests/kafka/setup.sh
	@tests/kafka/cluster.sh up $(NODES) $(DIR) $(PORT)
