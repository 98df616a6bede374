//! Which stanza each staged path goes to. Pure.
//!
//! Every file and symbolic link must be claimed by exactly one stanza, so that
//! nothing is shipped by accident and nothing is shipped twice. Directories
//! need no claim: those on the way to a claimed path follow it. A directory
//! that is to be shipped for itself is claimed by a pattern that ends in a slash.

use std::collections::BTreeSet;

use super::pattern::Pattern;

/// The paths of every stanza, as indices into the staged paths, and what was left.
#[derive(Debug, PartialEq, Eq)]
pub struct Partition {
    /// For each stanza, the paths it ships, ancestors included.
    pub shares: Vec<BTreeSet<usize>>,
    /// Directories that are part of no share although they are empty.
    pub unclaimed_directories: Vec<usize>,
}

/// Why the staged tree cannot be divided; the messages name every path.
#[derive(Debug, PartialEq, Eq)]
pub struct Undivided {
    /// One line per path.
    pub lines: Vec<String>,
}

/// A staged path as the partition sees it.
#[derive(Debug, Clone, Copy)]
pub struct Path<'a> {
    /// Without a trailing slash, relative to `$DESTDIR`.
    pub path: &'a str,
    /// Whether it is a directory; a link to one is not.
    pub is_directory: bool,
}

/// Divides `paths`, which are sorted and contain every ancestor of their
/// members, among `stanzas`, given as labels and patterns.
///
/// # Errors
/// Every path that no stanza claims and every path that several claim.
pub fn divide(stanzas: &[(String, &[Pattern])], paths: &[Path<'_>]) -> Result<Partition, Undivided> {
    let mut shares = vec![BTreeSet::new(); stanzas.len()];
    let mut lines = Vec::new();
    for (index, staged) in paths.iter().enumerate() {
        let claims = |patterns: &[Pattern]| {
            patterns.iter().any(|pattern| pattern.claims(staged.path, staged.is_directory))
        };
        let claimants: Vec<usize> = (0..stanzas.len()).filter(|stanza| claims(stanzas[*stanza].1)).collect();
        match claimants[..] {
            [stanza] => {
                shares[stanza].insert(index);
            }
            [] if staged.is_directory => {}
            [] => lines.push(format!("orphan: {} is claimed by no [[package]]", staged.path)),
            _ => {
                let labels: Vec<&str> = claimants.iter().map(|stanza| stanzas[*stanza].0.as_str()).collect();
                lines.push(format!("overlap: {} is claimed by {}", staged.path, labels.join(" and ")));
            }
        }
    }
    if !lines.is_empty() {
        return Err(Undivided { lines });
    }
    for share in &mut shares {
        add_ancestors(share, paths);
    }
    let is_bare = |index: usize| {
        let below = paths.get(index + 1).and_then(|next| next.path.strip_prefix(paths[index].path));
        paths[index].is_directory && !below.is_some_and(|below| below.starts_with('/'))
    };
    let unclaimed_directories = (0..paths.len())
        .filter(|index| is_bare(*index) && !shares.iter().any(|share| share.contains(index)))
        .collect();
    Ok(Partition { shares, unclaimed_directories })
}

fn add_ancestors(share: &mut BTreeSet<usize>, paths: &[Path<'_>]) {
    for index in share.clone() {
        let mut path = paths[index].path;
        while let Some((parent, _)) = path.rsplit_once('/') {
            let Ok(at) = paths.binary_search_by(|staged| compare(staged.path, parent)) else { break };
            if !share.insert(at) {
                break;
            }
            path = parent;
        }
    }
}

/// The order of the staged paths: component by component, so that a directory
/// is directly followed by what is in it.
pub fn compare(a: &str, b: &str) -> std::cmp::Ordering {
    a.split('/').cmp(b.split('/'))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Each share and what was left, or the lines of the error.
    type Divided = Result<(Vec<Vec<String>>, Vec<String>), Vec<String>>;

    /// Divides `paths`, directories being those with a final slash, and lists each share.
    fn run(stanzas: &[(&str, &[&str])], paths: &[&str]) -> Divided {
        let parsed: Vec<(String, Vec<Pattern>)> = stanzas
            .iter()
            .map(|(label, patterns)| {
                let patterns = patterns.iter().map(|text| Pattern::parse(text).unwrap()).collect();
                ((*label).to_owned(), patterns)
            })
            .collect();
        let stanzas: Vec<_> =
            parsed.iter().map(|(label, patterns)| (label.clone(), patterns.as_slice())).collect();
        let mut staged: Vec<Path<'_>> = paths
            .iter()
            .map(|path| Path { path: path.trim_end_matches('/'), is_directory: path.ends_with('/') })
            .collect();
        staged.sort_by(|a, b| compare(a.path, b.path));
        let name = |index: &usize| staged[*index].path.to_owned();
        let partition = divide(&stanzas, &staged).map_err(|undivided| undivided.lines)?;
        let shares = partition.shares.iter().map(|share| share.iter().map(name).collect()).collect();
        Ok((shares, partition.unclaimed_directories.iter().map(name).collect()))
    }

    #[test]
    fn ancestors_of_claimed_files_come_along() {
        let paths = ["usr/", "usr/bin/", "usr/bin/a", "usr/share/", "usr/share/b", "usr/share-x", "etc/"];
        let (shares, left) =
            run(&[("a", &["usr/bin/*"]), ("b", &["usr/share/**", "usr/share-x"])], &paths).unwrap();
        assert_eq!(shares[0], ["usr", "usr/bin", "usr/bin/a"]);
        assert_eq!(shares[1], ["usr", "usr/share", "usr/share/b", "usr/share-x"]);
        assert_eq!(left, ["etc"]);
    }

    #[test]
    fn empty_directory_is_claimed_by_a_final_slash() {
        let paths = ["var/", "var/lib/", "var/lib/x/", "var/log/", "var/log/x/"];
        let (shares, left) = run(&[("a", &["var/lib/x/", "var/**"])], &paths).unwrap();
        assert_eq!(shares[0], ["var", "var/lib", "var/lib/x"]);
        assert_eq!(left, ["var/log/x"]);
    }

    #[test]
    fn orphans_and_overlaps_are_all_named() {
        let stanzas: [(&str, &[&str]); 2] = [("a", &["etc/*", "var/x/"]), ("b", &["etc/b*", "var/*/"])];
        let lines = run(&stanzas, &["etc/", "etc/a", "etc/b", "opt/", "opt/c", "opt/d", "var/", "var/x/"])
            .unwrap_err();
        assert_eq!(
            lines,
            [
                "overlap: etc/b is claimed by a and b",
                "orphan: opt/c is claimed by no [[package]]",
                "orphan: opt/d is claimed by no [[package]]",
                "overlap: var/x is claimed by a and b",
            ]
        );
    }

    #[test]
    fn staging_empty_gives_an_empty_share() {
        assert_eq!(run(&[("a", &[])], &[]).unwrap().0, [Vec::<String>::new()]);
    }
}
