#!/bin/sh
# Demonstrates a farm: builds the programs, creates an upstream and a farm in target/demo/, and runs
# two sweeps. Needs cargo and git; uses cc if available. Exits 0 only if every result is as
# expected.
#
# BIN=DIR uses the programs in DIR and builds nothing.

set -eu
umask 022
# Ignore the machine's git configuration, and the repository of a git hook that runs this script.
unset GIT_DIR GIT_WORK_TREE GIT_INDEX_FILE GIT_OBJECT_DIRECTORY GIT_COMMON_DIR 2>/dev/null || :
export GIT_CONFIG_GLOBAL=/dev/null GIT_CONFIG_NOSYSTEM=1 LC_ALL=C

root=$(cd "$(dirname "$0")/../.." && pwd)
cd "$root"
target=${CARGO_TARGET_DIR:-target}
mkdir -p "$target"
target=$(cd "$target" && pwd)
demo=$target/demo

if [ -t 1 ] && [ -z "${NO_COLOR:-}" ] && [ "${TERM:-dumb}" != dumb ]; then
    bold=$(printf '\033[1m') green=$(printf '\033[32m') red=$(printf '\033[31m') dim=$(printf '\033[2m') off=$(printf '\033[0m')
else
    bold='' green='' red='' dim='' off=''
fi

step=0

heading() {
    step=$((step + 1))
    printf '\n%s%d. %s%s\n' "$bold" "$step" "$1" "$off"
}

# Prints one line for each argument, indented unless empty.
say() {
    for line in "$@"; do
        printf '%s\n' "${line:+   $line}"
    done
}

good() {
    printf '   %sok%s  %s\n' "$green" "$off" "$1"
}

# Ends the demo with an error. Keeps target/demo/ for inspection.
fail() {
    printf '\n%sThe demo failed:%s %s\n' "$red" "$off" "$1" >&2
    printf 'See the logs in %s.\n' "$(short "$demo/state/logs")" >&2
    exit 1
}

# Prints a path relative to the source.
short() {
    case $1 in
        "$root"/*) printf '%s' "${1#"$root"/}" ;;
        *) printf '%s' "$1" ;;
    esac
}

# Counts the build logs of recipe $1 that belong to attempts that $2: succeeded or failed.
count() {
    case $2 in
        succeeded) find "$demo/state/logs/$1" -name '*.ok.log' ;;
        failed) find "$demo/state/logs/$1" -name '*.log' ! -name '*.ok.log' ;;
    esac | grep -c . || :
}

# Runs one sweep.
sweep() {
    say "${dim}\$ peipkg-manager --once --config $(short "$demo/config.toml")${off}" ''
    PATH="$bin:$PATH" "$bin/peipkg-manager" --once --config "$demo/config.toml" 2>&1 ||
        fail "peipkg-manager --once ended with exit code $?"
}

# ---------------------------------------------------------------------------------------------------------------------

printf '%sA package build farm, from nothing%s\n' "$bold" "$off"

heading 'Build the programs'
if [ -n "${BIN:-}" ]; then
    bin=$(cd "$BIN" && pwd)
    say "Using those in $(short "$bin")."
else
    say 'peipkg-manager and its companions peipkg-build and peipkg-repo, with cargo. This build is not' \
        'optimized, so it takes about a minute; "make" builds the programs to install.'
    cargo build --workspace --target-dir "$target"
    bin=$target/debug
fi
for program in peipkg-manager peipkg-build peipkg-repo; do
    [ -x "$bin/$program" ] || fail "$(short "$bin/$program") is missing"
done
good "in $(short "$bin")"

rm -rf "$demo"
mkdir -p "$demo/upstream" "$demo/recipes"

# ---------------------------------------------------------------------------------------------------------------------

heading 'Make an upstream'

# Compile the program if there is a compiler and packages have this architecture.
case $(uname -m) in
    x86_64 | amd64) arch=x86_64 ;;
    aarch64 | arm64) arch=aarch64 ;;
    *) arch=noarch ;;
esac
command -v cc >/dev/null 2>&1 || arch=noarch
if [ "$arch" = noarch ]; then
    say 'A git repository with a small shell program (there is no C compiler here), its manual and'
else
    say 'A git repository with a small C program, its manual and'
fi
say 'some greetings. Upstream tags the program and the greetings on their own.'

# Fixed dates give the same packages each time.
upstream_commit() {
    GIT_AUTHOR_DATE=$2 GIT_COMMITTER_DATE=$2 git -C "$demo/upstream" \
        -c user.name='A Demo' -c user.email=demo@example.org -c commit.gpgsign=false \
        commit --quiet --message "$1"
}

# Writes the program of version $1, commits it on the day $2 of January and tags it.
upstream_program() {
    if [ "$arch" = noarch ]; then
        printf '#!/bin/sh\necho "hello, version %s"\n' "$1" >"$demo/upstream/hello.sh"
    else
        cat >"$demo/upstream/hello.c" <<END
#include <stdio.h>

int main(void)
{
    return puts("hello, version $1") < 0;
}
END
    fi
    printf 'HELLO(1)\n\nhello - says hello, as version %s\n' "$1" >"$demo/upstream/hello.txt"
    git -C "$demo/upstream" add --all
    upstream_commit "hello $1" "2026-01-$2T12:00:00Z"
    git -C "$demo/upstream" tag "v$1"
}

# Writes the greetings of edition $1, commits them on the day $2 of January and tags them.
upstream_greetings() {
    mkdir -p "$demo/upstream/greetings"
    printf 'Good morning (%s)\n' "$1" >"$demo/upstream/greetings/english"
    printf 'Guten Morgen (%s)\n' "$1" >"$demo/upstream/greetings/german"
    git -C "$demo/upstream" add --all
    upstream_commit "greetings $1" "2026-01-$2T12:00:00Z"
    git -C "$demo/upstream" tag "greetings-$1"
}

git init --quiet --initial-branch=main "$demo/upstream"
upstream_program 1.0.0 05
upstream_greetings 2026.1 08
upstream_program 1.1.0 12
upstream_greetings 2026.2 19
upstream_program 1.2.0 26
git -C "$demo/upstream" tag nightly
say '' "${dim}\$ git tag${off}"
git -C "$demo/upstream" tag | sed 's/^/   /'

# ---------------------------------------------------------------------------------------------------------------------

heading 'Write the recipes'
say 'hello      two packages from one build: the program, and hello-doc, which needs the very' \
    '           same build of it' \
    'greetings  from the same upstream, by other tags; its package is called hello-greetings' \
    'broken     a recipe whose build fails, to show that the others are built nevertheless'

# Writes the first part of the recipe $1, with the tag pattern $2.
recipe() {
    mkdir "$demo/recipes/$1"
    cat >"$demo/recipes/$1/peipkg.toml" <<END
[meta]
license = "MIT"
build_script = "build.sh"

[upstream]
git = "file://$demo/upstream"
tag_pattern = '$2'
peios_revision = 1
END
}

recipe hello '^v(\d+\.\d+\.\d+)$'
cat >>"$demo/recipes/hello/peipkg.toml" <<END

[[package]]
name = "hello"
architecture = "$arch"
description = "A program that says hello"
files = ["usr/bin/**"]

[[package]]
name = "hello-doc"
architecture = "noarch"
description = "The manual of hello"
dependencies = [{ name = "hello", same_build = true }]
files = ["usr/share/doc/**"]
END
cat >"$demo/recipes/hello/build.sh" <<'END'
set -eu
mkdir -p "$DESTDIR/usr/bin" "$DESTDIR/usr/share/doc/hello"
if [ -e "$SOURCE_DIR/hello.c" ]; then
    cc -O2 -o "$DESTDIR/usr/bin/hello" "$SOURCE_DIR/hello.c"
else
    cp "$SOURCE_DIR/hello.sh" "$DESTDIR/usr/bin/hello"
fi
cp "$SOURCE_DIR/hello.txt" "$DESTDIR/usr/share/doc/hello/"
END

recipe greetings '^greetings-(\d+\.\d+)$'
cat >>"$demo/recipes/greetings/peipkg.toml" <<'END'

[[package]]
name = "hello-greetings"
architecture = "noarch"
description = "Greetings for hello"
files = ["usr/share/**"]
END
cat >"$demo/recipes/greetings/build.sh" <<'END'
set -eu
mkdir -p "$DESTDIR/usr/share/hello"
cp "$SOURCE_DIR"/greetings/* "$DESTDIR/usr/share/hello/"
END

recipe broken '^v(1\.2\.0)$'
cat >>"$demo/recipes/broken/peipkg.toml" <<'END'

[[package]]
name = "broken"
architecture = "noarch"
description = "Never built"
files = ["usr/**"]
END
cat >"$demo/recipes/broken/build.sh" <<'END'
echo 'no rule to make target all' >&2
exit 2
END
good "in $(short "$demo/recipes")"

# ---------------------------------------------------------------------------------------------------------------------

heading 'Set up the farm'
say 'A fresh signing key, 32 random bytes, and one configuration file.' ''
(umask 077 && dd if=/dev/urandom of="$demo/farm.key" bs=32 count=1 2>/dev/null)
cat >"$demo/config.toml" <<END
[manager]
id = "demo-farm"
recipes_dir = "$demo/recipes"
state_dir = "$demo/state"

[repo]
name = "demo"
description = "What the demo built"

[signing]
key_file = "$demo/farm.key"

[poll]
default_interval = "1h"
END
sed -e "s|$root/||" -e 's/^./   &/' "$demo/config.toml"

# ---------------------------------------------------------------------------------------------------------------------

heading 'First sweep: find, build, sign, publish'
say 'The manager lists the tags of each upstream and builds every version that is not yet' \
    'published, newest first. The failing build is meant to fail.' ''
sweep

repo=$demo/state/repo
published() {
    (cd "$repo/p" && find . -name '*.peipkg') | sed 's|.*/||' | sort
}
sort >"$demo/expected" <<END
hello_1.0.0-1_$arch.peipkg
hello_1.1.0-1_$arch.peipkg
hello_1.2.0-1_$arch.peipkg
hello-doc_1.0.0-1_noarch.peipkg
hello-doc_1.1.0-1_noarch.peipkg
hello-doc_1.2.0-1_noarch.peipkg
hello-greetings_2026.1-1_noarch.peipkg
hello-greetings_2026.2-1_noarch.peipkg
END
published >"$demo/published"
say ''
if ! diff "$demo/expected" "$demo/published" >"$demo/difference"; then
    sed 's/^/   /' "$demo/difference" >&2
    fail 'the repository does not hold what was expected (< missing, > surplus)'
fi
packages=$(grep -c . "$demo/published")
good "$packages packages are published"
[ "$(count broken failed)" -eq 1 ] || fail 'broken must have failed once'
[ "$(count hello failed)$(count greetings failed)" = 00 ] || fail 'a build of another recipe failed'
good 'broken failed, as it should, and is not published'

# ---------------------------------------------------------------------------------------------------------------------

heading 'Second sweep: nothing to do'
say 'The same command again. It builds no published version again; it retries only broken, whose' \
    'upstream might have had a problem.' ''
cp "$repo/index/archive.json" "$demo/archive-after-first.json"
sweep
say ''
[ "$(count hello succeeded) $(count greetings succeeded)" = '3 2' ] || fail 'the second sweep built something that was already published'
[ "$(count broken failed)" -eq 2 ] || fail 'the second sweep must have tried broken again'
cmp -s "$repo/index/archive.json" "$demo/archive-after-first.json" || fail 'the second sweep changed the archive index'
good 'nothing was built, and the index has the same bytes'
for directory in sources stage publish; do
    [ -z "$(ls -A "$demo/state/$directory" 2>/dev/null)" ] || fail "something was left in state/$directory"
done
good 'no work files are left behind'

# ---------------------------------------------------------------------------------------------------------------------

heading 'The repository'
say 'Plain files, ready for any web server or object store.' ''
(cd "$repo" && find . -type f | sort | while read -r file; do
    printf '   %s%8d%s  %s\n' "$dim" "$(wc -c <"$file")" "$off" "${file#./}"
done)

heading 'Verify it'
say 'Every signature of the descriptor and the indexes, every package against its hash, and its' \
    'provenance: the signed statement of which commit and recipe the farm built it from.' '' \
    "${dim}\$ peipkg-repo verify --repo $(short "$repo") --mode both${off}"
if "$bin/peipkg-repo" verify --repo "$repo" --mode both >"$demo/verify.log" 2>&1; then
    sed "s|$root/||; s/^/   /" "$demo/verify.log"
else
    sed 's/^/   /' "$demo/verify.log" >&2
    fail 'the repository does not verify'
fi
good 'the repository verifies'
grep -q ", $packages with verified provenance\$" "$demo/verify.log" || fail 'a package has no verified provenance'
good "the provenance of all $packages packages is signed by the farm and is about these bytes"

# ---------------------------------------------------------------------------------------------------------------------

printf '\n%sAll as it should be%s\n\n' "$bold" "$off"
cat <<END
   published     $packages packages of 5 tags, all from one upstream
   failed        broken 1.2.0-1, on purpose, without delaying the others
   second sweep  built nothing
   verified      signatures, hashes and provenance

   Look at
     $(short "$repo")
         the repository: repo.json, index/ and the packages under p/
     $(short "$demo/recipes")
         three recipes to start from
     $(short "$demo/state/logs")
         the output of each build
   and try
     git -C $(short "$demo/upstream") tag v1.3.0
     PATH="$(short "$bin"):\$PATH" peipkg-manager --once --config $(short "$demo/config.toml")
END
