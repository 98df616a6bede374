//! Reads the committer times of tags, which builds get as their timestamp.

use std::collections::HashMap;
use std::time::{Duration, SystemTime};

use crate::process::{Interrupt, ProcessError, Program};
use crate::upstream::git::{GitError, unexpected};

/// The fields that git prints for a tag: type and committer time of the tag's object, the same of
/// the object to which that one points, and the tag's name.
const TAG_FORMAT: &str = "--format=%(objecttype)|%(committerdate:unix)|%(*objecttype)|%(*committerdate:unix)\
                          |%(refname:strip=2)";

/// The longest answer about tags accepted, in bytes: a few KiB for each of the tags of one fetch.
const MAX_ANSWER: usize = 256 * 1024;

/// Reads the committer times of several tags by one process. Leaves out a tag that points to a
/// commit through more than one tag object, or to none: [`of_tag`] finds the time, or an error that
/// says why not. `git` must already name the repository.
///
/// # Errors
/// When git fails.
pub(super) fn of_tags<'t>(
    git: Program,
    tags: impl IntoIterator<Item = &'t str>,
    interrupt: &Interrupt,
) -> Result<HashMap<String, SystemTime>, ProcessError> {
    let references = tags.into_iter().map(|tag| format!("refs/tags/{tag}"));
    let program = git.args(["for-each-ref", TAG_FORMAT, "--"]).args(references);
    let output = program.capture_stdout(MAX_ANSWER).run(interrupt)?.stdout;
    Ok(String::from_utf8_lossy(&output).lines().filter_map(parse_line).collect())
}

/// Reads the committer time of a tag's commit, through any number of tag objects.
///
/// # Errors
/// When git fails, or RFC 3339 cannot write the time.
pub(super) fn of_tag(git: Program, tag: &str, interrupt: &Interrupt) -> Result<SystemTime, GitError> {
    let program = git.args(["show", "--no-patch", "--no-show-signature", "--format=%ct"]);
    let output = program.arg(format!("refs/tags/{tag}^{{commit}}")).capture_stdout(1024).run(interrupt)?;
    let text = String::from_utf8_lossy(&output.stdout);
    parse_time(text.trim()).ok_or_else(|| unexpected(text.trim(), "a commit time between 1970 and 9999"))
}

/// Parses a line of [`TAG_FORMAT`].
pub(crate) fn parse_line(line: &str) -> Option<(String, SystemTime)> {
    let mut fields = line.splitn(5, '|');
    let mut next = || fields.next();
    let (own, target) = ((next()?, next()?), (next()?, next()?));
    let (_, seconds) = [own, target].into_iter().find(|(kind, _)| *kind == "commit")?;
    Some((next()?.to_owned(), parse_time(seconds)?))
}

fn parse_time(text: &str) -> Option<SystemTime> {
    /// The last second that RFC 3339 can write: the end of the year 9999.
    const LATEST: u64 = 253_402_300_799;
    let seconds = text.parse().ok().filter(|seconds| *seconds <= LATEST)?;
    SystemTime::UNIX_EPOCH.checked_add(Duration::from_secs(seconds))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commit_time_outside_of_rfc_3339_is_refused() {
        let time = parse_time("1700000000").unwrap();
        assert_eq!(humantime::format_rfc3339_seconds(time).to_string(), "2023-11-14T22:13:20Z");
        for bad in ["", "x", "-1", "99999999999999"] {
            assert!(parse_time(bad).is_none(), "{bad}");
        }
    }

    #[test]
    fn commit_time_line_names_the_tag_and_its_commit() {
        let cases = [
            ("commit|7|||v1", Some(("v1", 7))),
            ("tag||commit|8|release/2|x", Some(("release/2|x", 8))),
            ("tag||tag||v3", None),
            ("tree||||v4", None),
            ("commit|-1|||v5", None),
            ("commit|1", None),
            ("", None),
        ];
        for (line, expected) in cases {
            let expected = expected.map(|(tag, seconds)| {
                (tag.to_owned(), SystemTime::UNIX_EPOCH + Duration::from_secs(seconds))
            });
            assert_eq!(parse_line(line), expected, "{line}");
        }
    }
}
