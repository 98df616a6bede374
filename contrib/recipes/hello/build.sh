# Builds hello. Runs in an empty directory; the source is in $SOURCE_DIR and may be written to.
set -eu
mkdir -p "$DESTDIR/usr/bin"
install -m 755 "$SOURCE_DIR/hello.sh" "$DESTDIR/usr/bin/hello"
