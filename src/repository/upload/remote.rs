//! Splits the parameters off a remote that is configured in its own name. Pure.
//!
//! `:sftp,host=…,pass=…:path` may hold a password, and every user of the machine can read rclone's
//! command line. rclone reads the parameters of a remote from its environment too, which only the
//! same user and root can read.

/// The name of a remote that has only a backend. rclone's configuration has none of this name.
const UNNAMED: &str = "peipkg-manager-upload";

/// A remote as rclone gets it.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Remote {
    /// The remote and path for the command line.
    pub name: String,
    /// Variables for rclone's environment.
    pub parameters: Vec<(String, String)>,
}

/// Splits `text` (rclone, "Connection strings"). A text that rclone would refuse stays as it is.
pub(super) fn of(text: &str) -> Remote {
    split(text).unwrap_or_else(|| Remote { name: text.to_owned(), parameters: Vec::new() })
}

fn split(text: &str) -> Option<Remote> {
    let (head, mut rest) = text.split_once(',')?;
    let (name, mut pairs) = match head.strip_prefix(':') {
        Some(backend) => (UNNAMED, vec![("type".to_owned(), backend.to_owned())]),
        None => (head, Vec::new()),
    };
    // A path may have a comma too.
    if head.is_empty() || head[1..].contains([':', '/', '=']) || head.starts_with('/') {
        return None;
    }
    loop {
        let (key, after) = rest.split_at(rest.find(['=', ',', ':'])?);
        let (value, after) = match after.strip_prefix('=') {
            Some(after) => split_value(after)?,
            None => ("true".to_owned(), after),
        };
        pairs.push((key.to_owned(), value));
        if let Some(path) = after.strip_prefix(':') {
            let variable =
                |key: &str| format!("RCLONE_CONFIG_{name}_{}", key.replace('-', "_")).to_ascii_uppercase();
            let parameters = pairs.into_iter().map(|(key, value)| (variable(&key), value)).collect();
            return Some(Remote { name: format!("{name}:{path}"), parameters });
        }
        rest = after.strip_prefix(',')?;
    }
}

/// Splits off the value at the start of `text`. A quote within quotes is doubled.
fn split_value(text: &str) -> Option<(String, &str)> {
    let Some(quote) = text.chars().next().filter(|first| matches!(first, '\'' | '"')) else {
        let (value, rest) = text.split_at(text.find([',', ':'])?);
        return Some((value.to_owned(), rest));
    };
    let (mut value, mut rest) = (String::new(), &text[1..]);
    loop {
        let (part, after) = rest.split_once(quote)?;
        value += part;
        match after.strip_prefix(quote) {
            Some(more) => {
                value.push(quote);
                rest = more;
            }
            None => return Some((value, after)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn remote_with_parameters_has_them_in_the_environment() {
        for (text, name, parameters) in [
            ("r2:pkgs", "r2:pkgs", &[][..]),
            ("/srv/a,b:c", "/srv/a,b:c", &[]),
            ("r2:a,b=c:d", "r2:a,b=c:d", &[]),
            ("r2,no:", "r2:", &[("RCLONE_CONFIG_R2_NO", "true")]),
            (
                ":sftp,host=h,key-use-agent=false:a:b",
                "peipkg-manager-upload:a:b",
                &[
                    ("RCLONE_CONFIG_PEIPKG-MANAGER-UPLOAD_TYPE", "sftp"),
                    ("RCLONE_CONFIG_PEIPKG-MANAGER-UPLOAD_HOST", "h"),
                    ("RCLONE_CONFIG_PEIPKG-MANAGER-UPLOAD_KEY_USE_AGENT", "false"),
                ],
            ),
            (
                "dav,url='https://h:1/,''x''',pass=\"s\":p",
                "dav:p",
                &[("RCLONE_CONFIG_DAV_URL", "https://h:1/,'x'"), ("RCLONE_CONFIG_DAV_PASS", "s")],
            ),
            ("r2,pass='x:p", "r2,pass='x:p", &[]),
            ("r2,pass", "r2,pass", &[]),
        ] {
            let parameters = parameters.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned()));
            assert_eq!(
                of(text),
                Remote { name: name.to_owned(), parameters: parameters.collect() },
                "{text}"
            );
        }
    }
}
