//! Reads the commits of tags: builds get their committer times as timestamps, and some their ids.

use std::collections::HashMap;
use std::time::{Duration, SystemTime};

use crate::process::{Interrupt, ProcessError, Program};
use crate::upstream::git::{GitError, unexpected};

/// The fields that git prints for a tag: type, id and committer time of the tag's object, the same
/// of the object to which that one points, and the tag's name.
const TAG_FORMAT: &str = "--format=%(objecttype)|%(objectname)|%(committerdate:unix)\
                          |%(*objecttype)|%(*objectname)|%(*committerdate:unix)|%(refname:strip=2)";

/// The longest answer about tags accepted, in bytes: a few KiB for each of the tags of one fetch.
const MAX_ANSWER: usize = 256 * 1024;

/// The commit that a tag names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Commit {
    /// Its full id.
    pub id: String,
    /// Its committer time.
    pub time: SystemTime,
    /// The full id of the object of an annotated tag that points to it, if known.
    pub tag_object: Option<String>,
}

/// Reads the commits of several tags by one process. Leaves out a tag that points to a commit
/// through more than one tag object, or to none: [`of_tag`] finds the commit, or an error that says
/// why not. `git` must already name the repository.
///
/// # Errors
/// When git fails.
pub(super) fn of_tags<'t>(
    git: Program,
    tags: impl IntoIterator<Item = &'t str>,
    interrupt: &Interrupt,
) -> Result<HashMap<String, Commit>, ProcessError> {
    let references = tags.into_iter().map(|tag| format!("refs/tags/{tag}"));
    let program = git.args(["for-each-ref", TAG_FORMAT, "--"]).args(references);
    let output = program.capture_stdout(MAX_ANSWER).run(interrupt)?.stdout;
    Ok(String::from_utf8_lossy(&output).lines().filter_map(parse_line).collect())
}

/// Reads a tag's commit, through any number of tag objects. `git` prepares a git in the repository.
///
/// # Errors
/// When the tag names no commit, git fails, or RFC 3339 cannot write the time.
pub(super) fn of_tag(
    git: impl Fn() -> Program,
    tag: &str,
    interrupt: &Interrupt,
) -> Result<Commit, GitError> {
    let run = |args: &[&str], object: String| {
        let output = git().args(args.iter().copied()).arg(object).capture_stdout(1024).run(interrupt)?;
        Ok::<_, ProcessError>(String::from_utf8_lossy(&output.stdout).trim().to_owned())
    };
    if let Some(commit) = of_tags(git(), [tag], interrupt)?.remove(tag) {
        return Ok(commit);
    }
    let kind = run(&["cat-file", "-t"], format!("refs/tags/{tag}^{{}}"))?;
    if let Some(kind) = ["tree", "blob"].into_iter().find(|other| *other == kind) {
        let id = run(&["rev-parse", "--verify"], format!("refs/tags/{tag}"))?;
        return Err(GitError::NoCommit { kind, id });
    }
    let show = ["show", "--no-patch", "--no-show-signature", "--format=%H %ct"];
    let text = run(&show, format!("refs/tags/{tag}^{{commit}}"))?;
    let commit = text.split_once(' ').and_then(|(id, seconds)| {
        Some(Commit { id: id.to_owned(), time: parse_time(seconds)?, tag_object: None })
    });
    commit.ok_or_else(|| unexpected(&text, "a commit and its time between 1970 and 9999"))
}

/// Parses a line of [`TAG_FORMAT`].
pub(crate) fn parse_line(line: &str) -> Option<(String, Commit)> {
    let mut fields = line.splitn(7, '|');
    let mut object = || Some((fields.next()?, fields.next()?, fields.next()?));
    let (own, target) = (object()?, object()?);
    let (_, id, seconds) = [own, target].into_iter().find(|(kind, ..)| *kind == "commit")?;
    let tag_object = (own.0 == "tag").then(|| own.1.to_owned());
    Some((fields.next()?.to_owned(), Commit { id: id.to_owned(), time: parse_time(seconds)?, tag_object }))
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
            ("commit|c1|7||||v1", Some(("v1", "c1", 7, None))),
            ("tag|t2||commit|c2|8|release/2|x", Some(("release/2|x", "c2", 8, Some("t2")))),
            ("tag|t3||tag|t3||v3", None),
            ("tree|o4|||||v4", None),
            ("commit|c5|-1||||v5", None),
            ("commit|c6|1", None),
            ("", None),
        ];
        for (line, expected) in cases {
            let expected = expected.map(|(tag, id, seconds, object)| {
                let time = SystemTime::UNIX_EPOCH + Duration::from_secs(seconds);
                let tag_object = object.map(str::to_owned);
                (tag.to_owned(), Commit { id: id.to_owned(), time, tag_object })
            });
            assert_eq!(parse_line(line), expected, "{line}");
        }
    }
}
