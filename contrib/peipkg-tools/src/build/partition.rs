//! Divides the staged paths among the stanzas of a recipe. Pure.
//!
//! Exactly one stanza must claim every file and symbolic link, so that none is shipped by accident
//! and none twice. A directory needs no claim: it follows the claimed paths below it. To ship an
//! empty directory, a pattern that ends in a slash claims it.

use std::collections::BTreeSet;

use super::pattern::Pattern;

/// The paths of every stanza, as indices into the staged paths.
#[derive(Debug, PartialEq, Eq)]
pub struct Partition {
    /// The paths that each stanza ships, with their parent directories.
    pub shares: Vec<BTreeSet<usize>>,
    /// Empty directories that no stanza ships.
    pub unclaimed_directories: Vec<usize>,
}

/// A staged path and whether it is a directory.
#[derive(Debug, Clone, Copy)]
pub struct Path<'a> {
    /// Without a trailing slash, relative to `$DESTDIR`.
    pub path: &'a str,
    /// Whether it is a directory; a link to one is not.
    pub is_directory: bool,
}

/// Divides `paths` among `stanzas`, which are labels with patterns. `paths` must be sorted by
/// [`compare`] and contain every parent directory.
///
/// # Errors
/// A line for every path that no stanza claims, and for every path that several claim.
pub fn divide(stanzas: &[(String, &[Pattern])], paths: &[Path<'_>]) -> Result<Partition, Vec<String>> {
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
        return Err(lines);
    }
    for share in &mut shares {
        add_ancestors(share, paths);
    }
    let is_empty = |index: usize| {
        let below = paths.get(index + 1).and_then(|next| next.path.strip_prefix(paths[index].path));
        paths[index].is_directory && !below.is_some_and(|below| below.starts_with('/'))
    };
    let unclaimed_directories = (0..paths.len())
        .filter(|index| is_empty(*index) && !shares.iter().any(|share| share.contains(index)))
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

/// Compares staged paths component by component, so that the content of a directory follows it
/// directly.
pub fn compare(a: &str, b: &str) -> std::cmp::Ordering {
    a.split('/').cmp(b.split('/'))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Each share and the unclaimed directories, or the lines of the error.
    type Divided = Result<(Vec<Vec<String>>, Vec<String>), Vec<String>>;

    /// Divides `paths`, in which a final slash marks a directory, and lists each share.
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
        let partition = divide(&stanzas, &staged)?;
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
