#!/bin/sh
# Builds the programs for `make` and `make static`, in the root of the source: as small as compiler and linker can, and
# with the same bytes for every builder who has the same toolchain.
#
#   CARGO             cargo, with arguments if need be
#   STATIC            yes: programs that need no library of the system, into target/static
#   SMALL             no: only what Cargo.toml says; for a linker that fails with the options below
#   RUSTFLAGS, CARGO_TARGET_DIR, CARGO_HOME    as cargo reads them; RUSTFLAGS are kept
#
# The options that make programs small go to their last step alone, so that libraries, build scripts
# and plain `cargo build` do without them.

set -eu
set --

cargo=${CARGO:-cargo}
directory=${CARGO_TARGET_DIR:-target}
target=''
static=''
if [ "${STATIC:-no}" = yes ]; then
    host=$(rustc -vV | sed -n 's/^host: //p')
    musl=${host%%-*}-unknown-linux-musl
    # ring and zstd have C code, for which cc needs the headers of musl.
    if [ -d "$(rustc --print target-libdir --target "$musl")" ] && command -v musl-gcc >/dev/null; then
        target=$musl
    else
        target=$host
    fi
    static='-C target-feature=+crt-static'
    echo "make: static programs for $target"
fi
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

# Fetch first, for the registry's directory.
$cargo fetch --locked --quiet ${target:+--target "$target"}

# Paths get into the messages of panics. rustc takes the last prefix that matches.
remaps=
remap() {
    [ ! -d "$1" ] || remaps="$remaps --remap-path-prefix=$(cd "$1" && pwd -P)$2"
}
home=${CARGO_HOME:-$HOME/.cargo}
mkdir -p "$directory"
remap . =.
remap "$directory" =target
remap "$home" =cargo
for registry in "$home"/registry/src/*/; do
    remap "$registry" /=
done
remap "$(rustc --print sysroot)/lib/rustlib/src/rust" "=/rustc/$(rustc -vV | sed -n 's/^commit-hash: //p')"
case $remaps in
    # RUSTFLAGS cannot quote a space, and a part of a path would be taken for a flag.
    *[!A-Za-z0-9/._=+:@,\ -]*) echo "make: a path has unusual characters, so it stays in the programs" >&2; remaps= ;;
esac
for word in $remaps; do
    case $word in
        --remap-path-prefix=*) ;;
        *) echo "make: a path has a space, so it stays in the programs" >&2; remaps=; break ;;
    esac
done
if [ -n "${CARGO_ENCODED_RUSTFLAGS:-}" ]; then
    separator=$(printf '\037')
    for word in $remaps; do CARGO_ENCODED_RUSTFLAGS=$CARGO_ENCODED_RUSTFLAGS$separator$word; done
    export CARGO_ENCODED_RUSTFLAGS
elif [ -n "${RUSTFLAGS:-}" ]; then
    export RUSTFLAGS="$RUSTFLAGS$remaps"
else
    # A variable would hide the flags of the builder's configuration; this adds to
    # those of its [build].
    list=
    for word in $remaps; do list="$list'$word',"; done
    set -- --config "build.rustflags=[$list]"
fi

# Keeps an option if a program that is linked with it runs.
small=
consider() {
    why=$1
    shift
    # shellcheck disable=SC2086
    if rustc ${RUSTFLAGS:-} ${target:+--target "$target"} -C panic=abort -C opt-level=z $static "$@" \
        -o "$work/trial" "$work/trial.rs" >"$work/log" 2>&1 && "$work/trial"; then
        small="$small $*"
    else
        echo "make: without $why, which this compiler or linker lacks; the programs get larger" >&2
    fi
}
cat >"$work/trial.rs" <<'END'
#[cfg(no_unwinder)]
extern crate no_unwinder;
fn main() { std::process::exit(std::env::args().count() as i32 - 1) }
END
if [ "${SMALL:-yes}" != no ]; then
    # A relative path: an absolute one would get into the names of symbols, and so into their order.
    consider 'leaving out unwind tables' \
        -C link-arg=-Wl,--no-eh-frame-hdr -C link-arg=-Wl,-T,contrib/release/no-unwind-tables.ld
    # A static glibc brings the unwinder itself, and the linker refuses a second one.
    case $static$target in
        ''|*musl)
            # shellcheck disable=SC2086
            rustc ${RUSTFLAGS:-} ${target:+--target "$target"} --edition=2024 --crate-type=rlib \
                -C panic=abort -C opt-level=z -o "$work/libno_unwinder.rlib" contrib/release/no_unwinder.rs || :
            consider 'leaving out the unwinder' \
                --cfg no_unwinder --extern "no_unwinder=$work/libno_unwinder.rlib" \
                -C link-arg=-Wl,--version-script=contrib/release/no-exports.map
            ;;
    esac
    consider 'short relocations' -C link-arg=-Wl,-z,pack-relative-relocs
    consider 'sharing the ends of texts' -C link-arg=-Wl,-O2
    consider 'merging equal functions' -C link-arg=-Wl,--icf=all
    for_all=$small
    # Only pieces that save four bytes: the calls of all shorter ones cost a sweep a tenth more.
    consider 'sharing equal pieces of functions' \
        -C llvm-args=-enable-machine-outliner=always -C llvm-args=-outliner-benefit-threshold=4
fi

# Each program alone: together, each would get the features that the others ask of a library.
for program in manager tools:build tools:repo; do
    # Calls of shared pieces would slow the tools down, which hash and parse.
    [ "$program" = manager ] || small=${for_all:-}
    # shellcheck disable=SC2086
    $cargo rustc "$@" --release --locked ${target:+--target "$target"} \
        -p "peipkg-${program%:*}" --bin "peipkg-${program#*:}" -- $static $small
done
if [ -n "$static" ]; then
    mkdir -p "$directory/static"
    for program in manager build repo; do
        cp -f "$directory/$target/release/peipkg-$program" "$directory/static/"
    done
fi
