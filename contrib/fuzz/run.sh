#!/bin/sh
# Fuzzes every reader of outside bytes: with libFuzzer if cargo-fuzz is installed, else by blind
# mutations. Before that, a test signs random and mutated binaries by two implementations.
#
# FUZZ_SECONDS  seconds for each reader; 60 if not set
# READERS       names of directories in tests/corpus; all if not set
#
# libFuzzer keeps its corpus in target/fuzz, and the next run starts from it. If an input breaks a
# reader, add the printed input to the reader's directory in tests/corpus: every test run replays
# it.

set -eu
root=$(cd "$(dirname "$0")/../.." && pwd)
cd "$root"
: "${CARGO:=cargo}" "${FUZZ_SECONDS:=60}" "${READERS:=$(ls tests/corpus)}"
work=${CARGO_TARGET_DIR:-$root/target}/fuzz
export PEIPKG_FUZZ_ROUNDS="${PEIPKG_FUZZ_ROUNDS:-20000}" PEIPKG_FUZZ_SEED="${PEIPKG_FUZZ_SEED:-$(date +%s)}"

"$CARGO" test -p peipkg-tools --test build -- --nocapture files_random_or_mutated_are_signed_as_the_rules_say

if ! "$CARGO" fuzz --version >/dev/null 2>&1; then
    echo "cargo-fuzz is not installed (cargo install cargo-fuzz): trying blind mutations of tests/corpus only" >&2
    exec "$CARGO" test --lib -- --nocapture readers_of_mutated_input_return_soon_without_panic
fi

# Fuzz the same versions of the dependencies that the manager uses.
cp Cargo.lock contrib/fuzz/Cargo.lock
# The code has no unsafe blocks to sanitize, and without a sanitizer the stable toolchain suffices.
host=$("${RUSTC:-rustc}" -vV | sed -n 's/^host: //p')
"$CARGO" fuzz build --fuzz-dir contrib/fuzz --target-dir "$work/target" --target "$host" --sanitizer none reader

status=0
for reader in $READERS; do
    mkdir -p "$work/corpus/$reader" "$work/artifacts/$reader"
    log=$work/$reader.log
    if PEIPKG_FUZZ_READER=$reader "$work/target/$host/release/reader" "$work/corpus/$reader" "tests/corpus/$reader" \
        -max_total_time="$FUZZ_SECONDS" -max_len=65536 -timeout=5 -rss_limit_mb=1024 -print_final_stats=1 \
        -artifact_prefix="$work/artifacts/$reader/" >"$log" 2>&1
    then
        inputs=$(sed -n 's/^stat::number_of_executed_units: *//p' "$log")
        echo "$reader: $inputs inputs, $(ls "$work/corpus/$reader" | wc -l) worth keeping"
    else
        tail -n 40 "$log" >&2
        echo "$reader: broken; see $log" >&2
        status=1
    fi
done
[ "$status" = 0 ] || echo "the inputs that broke a reader are in $work/artifacts" >&2
exit "$status"
