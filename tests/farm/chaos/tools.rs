//! The two stand-ins for `peipkg-repo` that publish while managers are killed.

/// A `peipkg-repo` that publishes only once the file named by the manager's `CHAOS_HOLD` is gone,
/// so that a test can first read a repository that does not change.
pub(super) const POLITE: &str = "#!/bin/sh
[ \"$1\" = publish ] && while [ -e \"$CHAOS_HOLD\" ]; do sleep 0.02; done
exec {real} \"$@\"
";

/// The rude variant, as bad as the contract allows: it writes in place, slowly, first one half of
/// each file, the index before the packages, and goes on after its manager's death.
pub(super) const RUDE: &str = "#!/bin/sh
[ \"$1\" = publish ] || exec {real} \"$@\"
while [ -e \"$CHAOS_HOLD\" ]; do sleep 0.02; done
previous= repo=
for argument; do
    [ \"$previous\" = --out ] && repo=$argument
    previous=$argument
done
scratch=$(mktemp -d \"$HOME/scratch.XXXXXX\") || exit
cp -a \"$repo\" \"$scratch/repo\"
left=$#
while [ \"$left\" -gt 0 ]; do
    argument=$1
    shift
    [ \"$argument\" = \"$repo\" ] && argument=$scratch/repo
    set -- \"$@\" \"$argument\"
    left=$((left - 1))
done
{real} \"$@\" >/dev/null || { status=$?; rm -rf \"$scratch\"; exit \"$status\"; }
slowly() {
    head -c \"$(($(wc -c <\"$1\") / 2))\" \"$1\" >\"$2\"
    sleep 0.01
    cat \"$1\" >\"$2\"
    sleep 0.01
}
cd \"$scratch/repo\" || exit
for file in index/archive.json index/archive.json.sig index/active.json index/active.json.sig repo.json repo.json.sig; do
    slowly \"$file\" \"$repo/$file\"
done
find p -name '*.peipkg' | while read -r file; do
    if ! cmp -s \"$file\" \"$repo/$file\"; then
        mkdir -p \"$repo/${file%/*}\"
        slowly \"$file\" \"$repo/$file\"
    fi
done
cd / && rm -rf \"$scratch\"
";
