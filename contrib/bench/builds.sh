#!/bin/sh
# Measures one package with a large payload, built, published and verified, in target/bench/: time and
# memory of each program. Uses only a shell, git and the programs. publishes.py measures many versions.
#
# PAYLOAD=N in MiB (1024) sets the size; BIN=DIR uses the programs in DIR and builds nothing. Exits 0
# only if the package was published and verifies, and no work files are left.
#
# Memory is the peak resident set (VmHWM of /proc/<pid>/status), sampled every tenth of a second,
# which may miss programs that end sooner.

set -eu
umask 022
unset GIT_DIR GIT_WORK_TREE GIT_INDEX_FILE GIT_OBJECT_DIRECTORY GIT_COMMON_DIR 2>/dev/null || :
export GIT_CONFIG_GLOBAL=/dev/null GIT_CONFIG_NOSYSTEM=1 LC_ALL=C

payload=${PAYLOAD:-1024}
root=$(cd "$(dirname "$0")/../.." && pwd)
cd "$root"
target=${CARGO_TARGET_DIR:-target}
mkdir -p "$target"
target=$(cd "$target" && pwd)
bench=$target/bench

if [ -n "${BIN:-}" ]; then
    bin=$(cd "$BIN" && pwd)
else
    cargo build --release --workspace --target-dir "$target"
    bin=$target/release
fi
export PATH="$bin:$PATH"

fail() {
    printf 'builds.sh: %s; %s is left as it is\n' "$1" "$bench" >&2
    exit 1
}

# Prints one result.
row() {
    printf '  %-44s %s\n' "$1" "$2"
}

# Creates the farm $1 with one recipe and the upstream $1/upstream. Reads the build script from
# standard input.
make_farm() {
    mkdir -p "$1/upstream" "$1/recipes/thing"
    printf 'a key of a measurement, and open' >"$1/farm.key"
    cat >"$1/config.toml" <<END
[manager]
id = "bench"
recipes_dir = "$1/recipes"
state_dir = "$1/state"
[repo]
name = "bench"
[signing]
key_file = "$1/farm.key"
[poll]
default_interval = "1h"
END
    cat >"$1/recipes/thing/peipkg.toml" <<END
[meta]
license = "MIT"
build_script = "build.sh"
[[package]]
name = "thing"
architecture = "noarch"
description = "Something to measure"
files = ["usr/share/thing/**"]
[upstream]
git = "file://$1/upstream"
tag_pattern = '^v(\d+)\$'
END
    cat >"$1/recipes/thing/build.sh"
    git init --quiet --initial-branch=main "$1/upstream"
    echo 'a file' >"$1/upstream/file"
    git -C "$1/upstream" add file
    GIT_AUTHOR_DATE=2026-01-01T00:00:00Z GIT_COMMITTER_DATE=2026-01-01T00:00:00Z git -C "$1/upstream" \
        -c user.name=Bench -c user.email=bench@example.org -c commit.gpgsign=false commit --quiet --message one
}

# Runs "$@" with standard error to $log. Writes its peak resident set, and those of our programs
# that it starts, to $peaks as lines `<program> <KiB>`.
measured() {
    : >"$peaks.raw"
    "$@" 2>"$log" &
    pid=$!
    while kill -0 "$pid" 2>/dev/null; do
        # A process may end after grep has listed it.
        cat $(grep -l -s -E '^Name:[[:space:]]peipkg-' /proc/[0-9]*/status) 2>/dev/null >"$peaks.now" || :
        awk -v farm="$pid" '
            $1 == "Name:" { name = $2 } $1 == "Pid:" { pid = $2 } $1 == "PPid:" { parent = $2 }
            $1 == "VmHWM:" && (pid == farm || parent == farm) { print name, $2 }' "$peaks.now" >>"$peaks.raw"
        sleep 0.1
    done
    wait "$pid" || fail "$1 ended with exit code $?: $(tail -n 1 "$log")"
    awk '$2 > most[$1] { most[$1] = $2 } END { for (name in most) print name, most[name] }' "$peaks.raw" |
        sort >"$peaks"
}

# Prints the contents of $peaks.
show_peaks() {
    while read -r name kib; do
        row "peak memory of $name${1:-}" "$(awk -v kib="$kib" 'BEGIN { printf "%.1f MiB", kib / 1024 }')"
    done <"$peaks"
}

now() {
    date +%s.%N
}

# Prints the seconds between $1 and $2.
seconds() {
    awk -v from="$1" -v to="$2" 'BEGIN { printf "%.2f s", to - from }'
}

check_clean() {
    left=$(find "$1/state/sources" "$1/state/stage" "$1/state/publish" -mindepth 1 | wc -l)
    [ "$left" -eq 0 ] || fail "$left files are left in the working directories"
    row 'left in sources/, stage/ and publish/' 'nothing'
}

rm -rf "$bench"
mkdir -p "$bench"
peaks=$bench/peaks

printf 'A payload of %s MiB\n' "$payload"
farm=$bench/payload
# Incompressible, and the same each time.
make_farm "$farm" <<END
mkdir -p "\$DESTDIR/usr/share/thing"
head -c ${payload}M /dev/zero | openssl enc -aes-128-ctr -K 00 -iv 00 -nosalt 2>/dev/null \\
    >"\$DESTDIR/usr/share/thing/file" || head -c ${payload}M /dev/urandom >"\$DESTDIR/usr/share/thing/file"
END
git -C "$farm/upstream" tag v1
log=$farm/log
start=$(now)
measured peipkg-manager --once --config "$farm/config.toml"
grep -q -F 'msg="build + publish complete"' "$log" || fail "the package was not published: $(tail -n 2 "$log")"
row 'built and published' "$(seconds "$start" "$(now)")"
package=$(find "$farm/state/repo/p" -name '*.peipkg')
row 'size of the package' "$(($(wc -c <"$package") / 1048576)) MiB"
show_peaks
check_clean "$farm"
start=$(now)
measured peipkg-repo verify --repo "$farm/state/repo" --mode both >/dev/null
row 'verified' "$(seconds "$start" "$(now)")"
show_peaks ' verify'
rm -rf "$farm/state"
