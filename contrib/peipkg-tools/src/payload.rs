//! Which paths and links a payload may have (PSD-009 §3.2.7, §3.4). Pure: paths are arguments.
//!
//! Each check returns the problem as the end of a sentence that starts with the path.

use unicode_normalization::is_nfc;

/// The most payload entries that a consumer must accept (PSD-009 §3.2.10).
pub const MAX_ENTRIES: usize = 100_000;
/// The most bytes that a package may decompress to: the absolute cap of PSD-009 §3.5.4.
pub const MAX_DECOMPRESSED: u64 = 4 << 30;
/// Longest component of a path, in bytes (PSD-009 §3.2.7).
const MAX_COMPONENT: usize = 255;
/// Longest path, in bytes (PSD-009 §3.2.7).
const MAX_PATH: usize = 4096;
/// Most components of a path (PSD-009 §3.2.10).
const MAX_DEPTH: usize = 256;

/// The architectures that have a library directory (PSD-009 §2.3.3).
const NATIVE: [&str; 2] = ["x86_64", "aarch64"];
/// The identifier of architecture-independent packages (PSD-009 §2.3.4).
pub const NOARCH: &str = "noarch";

/// Directories that every package may install to. PSD-009 §3.4.1 does not list `system`,
/// `usr/libexec` and `usr/src/dist`, but deployed consumers accept them.
const DESTINATIONS: [&str; 12] = [
    "usr/bin",
    "usr/sbin",
    "usr/libexec",
    "usr/share",
    "usr/include",
    "usr/src/debug",
    "usr/src/dist",
    "etc",
    "opt",
    "boot",
    "hooks",
    "system",
];
/// The one file that every package may install directly below `usr/lib`. PSD-009 §3.4.1 does not
/// list it, but deployed consumers accept it.
const OS_RELEASE: &str = "usr/lib/os-release";
/// The directory of debug information, not for `noarch` packages (PSD-009 §3.4.2).
const DEBUG: &str = "usr/lib/debug";
/// The tree in which a package may create directories but no files (PSD-009 §3.4.5).
const STATE: &str = "var";
/// Parents of destinations, which a package may list.
const PARENTS: [&str; 3] = ["usr", "usr/lib", "usr/src"];
/// Mount points that a package may create empty. PSD-009 §3.4.1 does not list them, but deployed
/// packages have them.
const MOUNT_POINTS: [&str; 5] = ["dev", "proc", "run", "sys", "tmp"];

/// The problem of a link whose target is in no destination.
pub const LEADS_OUTSIDE: &str = "leads outside the permitted destinations (PSD-009 §3.4.8)";
const OUTSIDE: &str = "is outside the permitted destinations (PSD-009 §3.4.1)";

/// Whether PSD-009 §2.3.2 defines `architecture`.
pub fn is_known_architecture(architecture: &str) -> bool {
    architecture == NOARCH || NATIVE.contains(&architecture)
}

/// Checks the form of a payload path without a trailing slash (PSD-009 §3.2.7).
pub fn check_path(path: &str) -> Result<(), &'static str> {
    check_characters(path)?;
    if path.split('/').any(|part| matches!(part, "" | "." | "..")) {
        return Err("has an empty, '.' or '..' component");
    }
    if path == ".peipkg" || path.starts_with(".peipkg/") {
        return Err("is reserved for the package's own metadata");
    }
    Ok(())
}

/// Checks that a package for `architecture` may install to `path` (PSD-009 §3.4.1, §3.4.2, §3.4.5).
pub fn check_destination(path: &str, is_directory: bool, architecture: &str) -> Result<(), &'static str> {
    let is_in = |tree: &str| lies_in(path, tree) && (is_directory || path != tree);
    if DESTINATIONS.into_iter().any(is_in) || (path == OS_RELEASE && !is_directory) {
        return Ok(());
    }
    if is_directory && is_outside_directory(path) {
        return Ok(());
    }
    if lies_in(path, STATE) {
        return if is_directory {
            Ok(())
        } else {
            Err("is under var, where a package may only create directories")
        };
    }
    if is_in(DEBUG) {
        return if architecture == NOARCH { Err("is debug information in a noarch package") } else { Ok(()) };
    }
    match NATIVE.into_iter().find(|native| is_in(&triplet_directory(native))) {
        Some(native) if native == architecture => Ok(()),
        Some(_) if architecture == NOARCH => Err("is under an architecture's directory in a noarch package"),
        Some(_) => Err("is under the directory of another architecture"),
        None => Err(OUTSIDE),
    }
}

/// Checks where a symbolic link leads (PSD-009 §3.4.8). `in_payload` tells whether the package has
/// an entry at a path.
pub fn check_target(link: &str, target: &str, in_payload: impl Fn(&str) -> bool) -> Result<(), &'static str> {
    match resolve_outside(link, target)? {
        Some(resolved) if !in_payload(&resolved) => Err(LEADS_OUTSIDE),
        _ => Ok(()),
    }
}

/// Checks the form of a link's target. Returns the path it leads to if that is in no destination;
/// the link is then allowed only if the package has an entry there.
pub fn resolve_outside(link: &str, target: &str) -> Result<Option<String>, &'static str> {
    check_characters(target)?;
    if target.starts_with('/') {
        return Err("is absolute; a link's target must be relative");
    }
    let mut resolved: Vec<&str> = link.split('/').collect();
    resolved.pop();
    for part in target.split('/') {
        match part {
            "" | "." => {}
            ".." => {
                resolved.pop().ok_or("leads out of the root")?;
            }
            _ => resolved.push(part),
        }
    }
    let resolved = resolved.join("/");
    Ok(if lies_in_destinations(&resolved) { None } else { Some(resolved) })
}

/// Checks the path of a claim's link: absolute, below a destination or `/run` (PSD-009 §4.4.2).
pub fn check_claim_path(path: &str) -> Result<(), &'static str> {
    let path = path.strip_prefix('/').ok_or("is not absolute")?;
    check_path(path)?;
    let is_tree = |path: &str| DESTINATIONS.contains(&path) || [DEBUG, STATE].contains(&path);
    if path.starts_with("run/") || (lies_in_destinations(path) && !is_tree(path)) {
        Ok(())
    } else {
        Err("is neither below a permitted destination (PSD-009 §3.4.1) nor below /run")
    }
}

/// Whether a package may have the directory `path` although it is in no destination.
pub fn is_outside_directory(path: &str) -> bool {
    PARENTS.contains(&path) || MOUNT_POINTS.contains(&path)
}

fn lies_in_destinations(path: &str) -> bool {
    path == OS_RELEASE
        || DESTINATIONS.into_iter().chain([DEBUG, STATE]).any(|tree| lies_in(path, tree))
        || NATIVE.into_iter().any(|native| lies_in(path, &triplet_directory(native)))
}

/// Checks the rules that paths and link targets share.
fn check_characters(path: &str) -> Result<(), &'static str> {
    if path.is_empty() {
        return Err("is empty");
    }
    if path.len() > MAX_PATH {
        return Err("is longer than 4096 bytes, the most that is allowed (PSD-009 §3.2.7)");
    }
    if path.bytes().any(|byte| byte.is_ascii_control()) {
        return Err("has a control character");
    }
    if path.contains('\\') {
        return Err("has a backslash");
    }
    if path.split('/').any(|part| part.len() > MAX_COMPONENT) {
        return Err("has a component longer than 255 bytes, the most that is allowed (PSD-009 §3.2.7)");
    }
    if path.split('/').count() > MAX_DEPTH {
        return Err("has more than 256 components, the most that are allowed (PSD-009 §3.2.10)");
    }
    if !path.is_ascii() && !is_nfc(path) {
        return Err("is not in Unicode normalization form C");
    }
    Ok(())
}

fn lies_in(path: &str, tree: &str) -> bool {
    path.strip_prefix(tree).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

fn triplet_directory(architecture: &str) -> String {
    format!("usr/lib/{architecture}-linux-peios")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn path_form_is_checked() {
        for good in ["usr/bin/x", "etc/ä/b c", ".peipkgs", "usr/...", "a/-x"] {
            assert_eq!(check_path(good), Ok(()), "{good}");
        }
        let long = "a/".repeat(2048) + "b";
        let wide = "a".repeat(256);
        let deep = "a/".repeat(256) + "a";
        for bad in [
            "",
            "/a",
            "a/",
            "a//b",
            "a/./b",
            "../a",
            "a/..",
            "a\nb",
            "a\u{7f}",
            "a\\b",
            "a\u{308}",
            ".peipkg",
            ".peipkg/x",
            &long,
            &wide,
            &deep,
        ] {
            assert!(check_path(bad).is_err(), "{bad:?}");
        }
    }

    #[track_caller]
    fn check(path: &str, architecture: &str, expected: Result<(), &str>) {
        let path_of_file = path.strip_suffix('/');
        let found = check_destination(path_of_file.unwrap_or(path), path_of_file.is_some(), architecture);
        match (found, expected) {
            (Ok(()), Ok(())) => {}
            (Err(found), Err(expected)) => assert!(found.contains(expected), "{path}: {found}"),
            (found, _) => panic!("{path} for {architecture}: {found:?}"),
        }
    }

    #[test]
    fn path_destination_is_checked() {
        for good in [
            "usr/",
            "usr/lib/",
            "usr/src/",
            "usr/bin/",
            "usr/bin/x",
            "usr/sbin/x",
            "usr/share/x/y",
            "etc/x",
            "usr/include/x.h",
            "usr/src/debug/x",
            "usr/src/dist/",
            "usr/src/dist/x.tar",
            "usr/libexec/",
            "usr/libexec/x",
            "usr/lib/os-release",
            "opt/x",
            "boot/x",
            "hooks/x",
            "system/x",
            "var/lib/x/",
            "run/",
            "tmp/",
            "dev/",
        ] {
            check(good, NOARCH, Ok(()));
            check(good, "x86_64", Ok(()));
        }
        for bad in [
            "bin/x",
            "bin",
            "bin/",
            "sbin",
            "sbin/x",
            "lib/",
            "lib/x",
            "lib64",
            "lib64/x",
            "usr/local/x",
            "usr/lib/x",
            "usr/lib/modules/1/x.ko",
            "usr/src/x",
            "usr/src/dist",
            "usr/src/distx/y",
            "usr/libexec",
            "usr/lib/os-release/",
            "usr/lib/os-release/x",
            "usr/lib/os-release2",
            "os-release",
            "home/",
            "x",
            "usr",
            "etc",
            "usr/bin",
            "usr/binx",
            "run",
            "run/x/",
            "run/x",
            "tmp/x",
            "usr/lib/i386-linux-peios/x",
        ] {
            check(bad, "x86_64", Err("outside"));
        }
        check("var/lib/x", "x86_64", Err("under var"));
        check("var", "x86_64", Err("under var"));
        check("usr/lib/debug/x", "x86_64", Ok(()));
        check("usr/lib/debug/x", NOARCH, Err("debug information"));
        check("usr/lib/x86_64-linux-peios/x.so", "x86_64", Ok(()));
        check("usr/lib/x86_64-linux-peios/", "x86_64", Ok(()));
        check("usr/lib/x86_64-linux-peios/x.so", "aarch64", Err("another architecture"));
        check("usr/lib/x86_64-linux-peios/", NOARCH, Err("noarch"));
    }

    #[test]
    fn link_target_is_checked() {
        let own = |path: &str| path == "usr/lib";
        for (link, target) in [
            ("usr/lib/x86_64-linux-peios/libz.so", "libz.so.1"),
            ("usr/bin/x", "../share/x"),
            ("usr/bin/x", ".././bin//y"),
            ("boot/kernel", "../usr/lib/aarch64-linux-peios/vmlinuz"),
            ("usr/share/x/lib", "../../lib"),
            ("etc/x", "../var/lib/x"),
            ("etc/x", "../etc"),
            ("etc/os-release", "../usr/lib/os-release"),
            ("usr/bin/x", "../libexec/x"),
            ("etc/x", "../usr/src/dist/x"),
        ] {
            assert_eq!(check_target(link, target, own), Ok(()), "{link} -> {target}");
        }
        for (link, target) in [
            ("usr/bin/x", "/usr/bin/y"),
            ("usr/bin/x", ""),
            ("usr/bin/x", "../../../etc/passwd"),
            ("usr/bin/x", "../../tmp/y"),
            ("usr/bin/x", "../.."),
            ("usr/bin/x", "../lib/y"),
            ("etc/os-release", "../usr/lib/os-release/x"),
            ("etc/x", "../lib64/x"),
            ("etc/x", "../usr/src/x"),
            ("usr/bin/x", "../../run"),
            ("etc/x", "../../usr/bin/x"),
            ("etc/x", "a\\b"),
            ("etc/x", "a\tb"),
        ] {
            assert!(check_target(link, target, own).is_err(), "{link} -> {target}");
        }
    }
}
