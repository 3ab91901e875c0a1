# The two commands of the README, `make quickstart` and `make test`, and what their authors need beside them.
# Everything is built in one profile and for the whole workspace, so that wasmtime is compiled once: cargo chooses the features of a
# dependency by the packages that are selected, and for the host alone they are others.

SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
toolchain := $(shell sed -n 's/^channel = "\(.*\)"/\1/p' rust-toolchain.toml)
target_dir := $(if $(CARGO_TARGET_DIR),$(CARGO_TARGET_DIR),target)

# $(call timed,NAME,COMMAND) runs the command and says how long it took.
timed = @echo "== $(1)"; start=$$SECONDS; $(2); echo "== $(1): $$((SECONDS - start)) s"

.PHONY: help quickstart test bench soak fmt clippy deny toolchain servers

help: ## Show this list
	@sed -n 's/^\([a-z]*\):.*## \(.*\)/  make \1\t\2/p' $(MAKEFILE_LIST) | expand -t 20

quickstart: toolchain ## Build wasmflow and watch events flow from a file through Kafka to the console
	$(call timed,build wasmflow,cargo build --release --workspace --bin wasmflow)
	@rm -rf examples/quickstart/state # so that the sample log is read again
	@$(target_dir)/release/wasmflow run examples/quickstart/pipeline.toml

test: toolchain servers ## Run every test, against a real Kafka and a real MariaDB
	$(call timed,build the tests,cargo build --release --workspace --all-targets)
	$(call timed,run the tests,cargo test --release --workspace --no-fail-fast)

soak: toolchain servers ## Run the tests that block and kill at full length: a minute blocked, hundreds of kills
	WASMFLOW_SOAK=1 cargo test --release --workspace --no-fail-fast

bench: toolchain servers ## Measure speed, latency and memory, each beside a reference in the same run
	$(call timed,build the benchmarks,cargo build --release --workspace --bins)
	@$(target_dir)/release/bench

fmt: toolchain ## Check the formatting; `cargo fmt` mends it
	cargo fmt --all --check

clippy: toolchain ## Lint everything
	cargo clippy --release --workspace --all-targets -- -D warnings

deny: toolchain ## Check the licences and sources of all dependencies
	@command -v cargo-deny >/dev/null || cargo install --locked cargo-deny
	cargo deny check licenses bans sources

# rustup does not install by itself everywhere (RUSTUP_AUTO_INSTALL=0), and the compiler that is there is never upgraded.
toolchain:
	@if ! command -v cc >/dev/null || ! command -v perl >/dev/null; then \
	  sudo=; [ "$$(id -u)" = 0 ] || sudo=sudo; \
	  $$sudo apt-get update -qq; \
	  DEBIAN_FRONTEND=noninteractive $$sudo apt-get install -y -qq build-essential perl; \
	fi
	@if command -v rustup >/dev/null; then \
	  rustup toolchain list | grep '^$(toolchain)-' >/dev/null \
	    || rustup toolchain install $(toolchain) --profile minimal -c rustfmt -c clippy; \
	  rustup target list --installed --toolchain $(toolchain) | grep -x wasm32-wasip2 >/dev/null \
	    || rustup target add --toolchain $(toolchain) wasm32-wasip2; \
	fi

servers:
	@tests/servers/install.sh
