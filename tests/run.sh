#!/usr/bin/env bash
# Everything that must hold: form, lints, documentation, and all tests. README's second
# command, and what CI runs. Needs Rust and a C compiler; tests/setup.sh brings the rest.
# Further arguments go to `cargo test`, e.g. `bash tests/run.sh -p astral-tests --test frames`.
set -euo pipefail
cd "$(dirname "$0")/.."

# Says what comes, and how long what came before took.
step() {
  took
  printf '\n── %s\n' "$*"
  began=$SECONDS
}
took() { if [ -n "${began:-}" ]; then printf '   (%d s)\n' $((SECONDS - began)); fi; }
trap took EXIT

# Nothing is compiled a second time in a clean clone.
if [ -n "${CI:-}" ]; then export CARGO_INCREMENTAL=0; fi

step "what the tests need"
bash tests/setup.sh
step "formatting"
cargo fmt --all --check
step "lints"
cargo clippy --workspace --all-targets --locked -- -D warnings
step "documentation"
RUSTDOCFLAGS="-D warnings" cargo doc --workspace --no-deps --document-private-items --locked
# Binaries and tests in one go: on its own, each has other features of the same dependencies,
# and those would be compiled twice.
step "binaries"
cargo build --workspace --bins --tests --locked
step "tests"
if [ $# -gt 0 ]; then
  cargo test --locked "$@"
else
  # Of the tests that fail, all are shown, not the first binary's only.
  cargo test --workspace --locked --no-fail-fast
fi
