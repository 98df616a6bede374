#!/bin/sh
# For `make reproducible`: fails unless two builders get the same bytes, no program is larger than its
# limit, the static programs run in an empty root, and `cargo install` works.
#
# Each builder has a directory, a home and a CARGO_HOME of its own; these have copies of what cargo has
# fetched, so nothing is fetched again.

set -eu

# So that no program grows unseen. The manager's goal is in docs/performance.md.
limits='peipkg-manager:2500000 peipkg-build:1460000 peipkg-repo:1500000'

cargo=${CARGO:-cargo}
$cargo fetch --locked --quiet
fetched=${CARGO_HOME:-$HOME/.cargo}
# rustup finds its toolchains by these.
RUSTUP_HOME=${RUSTUP_HOME:-$HOME/.rustup}
export RUSTUP_HOME
unset CARGO_TARGET_DIR
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

# Runs a command as the builder $1.
as() (
    its=$work/$1
    shift
    cd "$its/source"
    HOME=$its/home CARGO_HOME=$its/home/$cargo_home CARGO_NET_OFFLINE=true "$@"
)

for builder in first a-second-builder; do
    mkdir -p "$work/$builder/source" "$work/$builder/home"
    tar -cf - --exclude=./target --exclude=./.git . | tar -xf - -C "$work/$builder/source"
    cargo_home=.cargo
    [ "$builder" = first ] || cargo_home=somewhere/else
    mkdir -p "$work/$builder/home/$cargo_home"
    cp -R "$fetched/registry" "$work/$builder/home/$cargo_home/registry"
    # It may say where the crates come from.
    [ ! -f "$fetched/config.toml" ] || cp "$fetched/config.toml" "$work/$builder/home/$cargo_home"
    as "$builder" make --silent
    # The second builder's home is used below.
    [ "$builder" = a-second-builder ] || mv "$work/$builder/source/target/release" "$work/release-of-first"
done

failed=0
for limit in $limits; do
    program=${limit%:*}
    one=$work/release-of-first/$program
    other=$work/a-second-builder/source/target/release/$program
    size=$(stat -c %s "$one")
    echo "$program: $size bytes, limit ${limit#*:}"
    cmp "$one" "$other" || failed=1
    if [ "$size" -gt "${limit#*:}" ]; then
        echo "$program is too large" >&2
        failed=1
    fi
    for path in "$work" "$HOME/" "$RUSTUP_HOME"; do
        if grep -qF "$path" "$one"; then
            echo "$program contains the path $path" >&2
            failed=1
        fi
    done
    # contrib/release/no_unwinder.rs says why.
    for name in libgcc_s _Unwind_; do
        if grep -qF "$name" "$one"; then
            echo "$program loads the unwinder or shows a stand-in for it: it contains $name" >&2
            failed=1
        fi
    done
done

# The empty root has no library and no program.
as a-second-builder make --silent static
mkdir "$work/root"
cp "$work/a-second-builder/source/target/static/"* "$work/root"
for program in peipkg-manager peipkg-build peipkg-repo; do
    if [ "$(id -u)" -eq 0 ]; then
        chroot "$work/root" "/$program" --version
    else
        "$work/root/$program" --version
    fi
done

as a-second-builder "$cargo" install --quiet --path . --locked --root "$work/installed"
as a-second-builder "$cargo" install --quiet --path contrib/peipkg-tools --locked --root "$work/installed"
for program in peipkg-manager peipkg-build peipkg-repo; do
    "$work/installed/bin/$program" --version
done
exit "$failed"
