//! The command line of peipkg-manager: arguments in, exit code out; nothing else.

fn main() {}
