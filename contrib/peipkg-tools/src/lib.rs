//! The companion tools of peipkg-manager: `peipkg-build` and `peipkg-repo`.
