# Builds hello. Runs in an empty directory; $SOURCE_DIR has the source and is writable.
set -eu
mkdir -p "$DESTDIR/usr/bin"
install -m 755 "$SOURCE_DIR/hello.sh" "$DESTDIR/usr/bin/hello"
