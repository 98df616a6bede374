#!/bin/sh
# Builds the Debian package, for `make deb`, in a copy of the source: into the directory OUT. BUILT, an
# absolute path, names a directory of programs that are built already. DEBFULLNAME and DEBEMAIL, as Debian's
# tools know them, say who maintains the package: the project has no address of its own.

set -eu

out=${OUT:-${CARGO_TARGET_DIR:-target}/deb}
mkdir -p "$out"
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
trap 'exit 130' INT
trap 'exit 143' TERM
mkdir "$work/source"
tar -cf - --exclude=./target --exclude=./.git . | tar -xf - -C "$work/source"
cp -R contrib/debian "$work/source/debian"
maintainer="${DEBFULLNAME:-Local build} <${DEBEMAIL:-nobody@example.com}>"
escaped=$(printf '%s' "$maintainer" | sed 's/[\\&|]/\\&/g')
sed -i "s|@MAINTAINER@|$escaped|" "$work/source/debian/control" "$work/source/debian/changelog"
cd "$work/source"
# -d: cargo may come from elsewhere, as Debian's is older.
dpkg-buildpackage -b -d -us -uc
cd - >/dev/null
cp "$work"/*.deb "$out"
for package in "$work"/*.deb; do echo "made $out/${package##*/}"; done
