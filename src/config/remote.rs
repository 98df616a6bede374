//! The forms of an rclone remote, as far as the manager must tell them apart. Pure.

use std::path::Path;

/// The place that a remote names.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Place<'a> {
    /// A path on this machine: `/srv/packages` or `:local:/srv/packages`.
    Local(&'a Path),
    /// A remote of rclone's configuration and the path on it: `r2:packages`.
    Named(&'a str, &'a str),
    /// A backend that the remote itself configures: `:webdav,url='https://h':packages`.
    Backend,
}

/// Returns the place that `remote` names. `None` is a remote that would be a directory below the
/// current one, which is nowhere for a daemon, or no remote at all.
pub(crate) fn place(remote: &str) -> Option<Place<'_>> {
    if remote.contains(char::is_control) {
        return None;
    }
    if remote.starts_with('/') {
        return Some(Place::Local(Path::new(remote)));
    }
    let (is_backend, rest) = match remote.strip_prefix(':') {
        Some(rest) => (true, rest),
        None => (false, remote),
    };
    // A slash ends the name too: rclone takes `r2/packages:x` for a local path.
    let end = rest.find(|c: char| !may_be_in_name(c))?;
    let (name, rest) = rest.split_at(end);
    if name.is_empty() || name.starts_with([' ', '-']) || name.ends_with(' ') {
        return None;
    }
    let path = after_parameters(rest)?;
    match (is_backend, name) {
        (true, "local") => Some(Place::Local(Path::new(path))).filter(|_| path.starts_with('/')),
        (true, _) => Some(Place::Backend),
        (false, _) => Some(Place::Named(name, path)),
    }
}

/// Whether rclone allows a character in the name of a remote.
fn may_be_in_name(c: char) -> bool {
    c.is_alphanumeric() || matches!(c, '_' | '.' | '+' | '@' | '-' | ' ')
}

/// Returns what follows the colon after `,key=value,…`, in which a quoted value may have colons.
fn after_parameters(rest: &str) -> Option<&str> {
    let mut quote = None;
    for (place, c) in rest.char_indices() {
        match (c, quote) {
            (':', None) => return rest.starts_with([':', ',']).then(|| &rest[place + 1..]),
            ('\'' | '"', None) => quote = Some(c),
            (c, Some(open)) if c == open => quote = None,
            _ => {}
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn remote_names_a_place_that_no_working_directory_changes() {
        let local = |path| Some(Place::Local(Path::new(path)));
        let named = |name, path| Some(Place::Named(name, path));
        for (remote, expected) in [
            ("/srv/mirror", local("/srv/mirror")),
            ("/srv/a:b", local("/srv/a:b")),
            (":local:/srv/mirror", local("/srv/mirror")),
            (":local,copy_links=true:/srv", local("/srv")),
            ("r2:packages", named("r2", "packages")),
            ("r2:", named("r2", "")),
            ("my disk-1.b@c+d_e:/x/y", named("my disk-1.b@c+d_e", "/x/y")),
            ("größe:x", named("größe", "x")),
            ("r2,no_check_bucket=true:packages", named("r2", "packages")),
            (":webdav,url='http://127.0.0.1:8080/x',vendor=other:", Some(Place::Backend)),
            (":sftp,host=h,pass=\"a,b:'c\":pkgs", Some(Place::Backend)),
            (":s3:bucket/path", Some(Place::Backend)),
        ] {
            assert_eq!(place(remote), expected, "{remote}");
        }
        for nowhere in [
            "r2/packages",
            "r2",
            "packages:/../x\n",
            "./r2:packages",
            "../r2:packages",
            "r2/packages:x",
            "~/packages",
            "-x:y",
            " r2:x",
            "r2 :x",
            ":local:packages",
            ":local:",
            ":local,x='/:/'",
            ":packages",
            "::x",
            ":",
            ":,a=b:x",
            "r2;x:y",
            "r2,url='http://h:packages",
            "https//h:x",
            "\\\\host\\share:x",
        ] {
            assert_eq!(place(nowhere), None, "{nowhere}");
        }
    }
}
