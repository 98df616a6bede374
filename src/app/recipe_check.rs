//! Asks `peipkg-build` about the recipes, for `--check`: the manager reads only its own part of a
//! recipe, and a problem in the rest would show in the first build. Must not run a build.
//!
//! The official `peipkg-build` has no `check`, so the help text of that command is asked for first:
//! whatever a program makes of `check --help`, it builds nothing. A program that does not answer
//! with that text is not asked further, and the operator is told.

use std::collections::HashSet;
use std::fmt::Display;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use peipkg_format::problem::{OneLine, Problem};

use crate::app::roster::of_builds;
use crate::app::tool_commands::{Answer, GRACE, Output, has_command};
use crate::process::{Interrupt, ProcessError, Program};
use crate::recipe::FILE_NAME;

/// How long the tool may take for all recipes. It needs a few milliseconds for each.
const DEADLINE: Duration = Duration::from_mins(1);

/// The part of the help text by which a tool is known to have the command.
const USAGE: &str = "peipkg-build check --recipe ";

/// The tool's answers.
#[derive(Debug, Default)]
pub(super) struct Asked {
    /// The tool's problems, which make all builds of a recipe fail.
    pub unbuildable: Vec<Problem>,
    /// Why the tool could not be asked about some recipes.
    pub warnings: Vec<Problem>,
    /// A note if the tool has no `check`.
    pub note: Option<Problem>,
}

/// Asks `peipkg-build` at `tool` about the recipes below `recipes_dir`. Leaves out the lines of
/// `known`, the manager's own problems: most of them are problems for the tool too.
pub(super) fn ask<'a>(
    tool: &Path,
    recipes_dir: &Path,
    ids: &[Arc<str>],
    known: impl Iterator<Item = &'a Problem>,
) -> Asked {
    let mut asked = Asked::default();
    let files: Vec<PathBuf> = ids.iter().map(|id| recipes_dir.join(&**id).join(FILE_NAME)).collect();
    if files.is_empty() {
        return asked;
    }
    let unasked = |error: &dyn Display| {
        let message = format!("cannot ask peipkg-build about the recipes: {error}");
        Asked { warnings: vec![Problem::of_file(recipes_dir, message)], ..Asked::default() }
    };
    let interrupt = match Interrupt::new() {
        Ok(interrupt) => interrupt,
        Err(error) => return unasked(&error),
    };
    match has_command(tool, "check", USAGE, &interrupt) {
        Ok(Answer::Usage) => {}
        Ok(Answer::Other(answer)) => {
            let message = format!(
                "this peipkg-build has no check command, so only the build script and the descriptions \
                 are checked of what it reads in a recipe{answer}"
            );
            return Asked { note: Some(Problem::of_file(tool, message)), ..Asked::default() };
        }
        Err(error) => return unasked(&error),
    }
    let known: HashSet<_> = known.map(|problem| (problem.path.as_path(), problem.line)).collect();
    let start = Instant::now();
    for file in &files {
        match problems(tool, file, DEADLINE.saturating_sub(start.elapsed()), &interrupt) {
            Ok(problems) => {
                let new = problems.into_iter().filter(|problem| !known.contains(&(file, problem.line)));
                asked.unbuildable.extend(new);
            }
            Err(error) => {
                let message =
                    format!("cannot ask peipkg-build about this recipe and those after it: {error}");
                asked.warnings.push(Problem::of_file(file, message));
                break;
            }
        }
    }
    asked
}

/// Returns the problems that the tool prints of the recipe `file`.
fn problems(
    tool: &Path,
    file: &Path,
    deadline: Duration,
    interrupt: &Interrupt,
) -> Result<Vec<Problem>, ProcessError> {
    let output = Output::default();
    let program = Program::new(tool).args(["check", "--recipe"]).arg(file).log_to(&output);
    let Err(error) = program.deadline(Some(deadline)).grace(GRACE).run(interrupt) else {
        return Ok(Vec::new());
    };
    let mut found = match &error {
        ProcessError::Failed { status, .. } if status.code() == Some(1) => read(&output.text(), file),
        _ => Vec::new(),
    };
    if found.is_empty() {
        return Err(error);
    }
    if output.is_full() {
        let message = "its builds will fail: these are its first problems; mend them to see the others";
        found.push(Problem::of_file(file, message));
    }
    Ok(found)
}

/// Reads the lines `FILE:LINE: message` and `FILE: message` about `file` in the tool's output.
fn read(output: &str, file: &Path) -> Vec<Problem> {
    let shown = OneLine(&file.display().to_string()).to_string();
    let read_line = |line: &str| {
        let rest = line.strip_prefix(&shown)?.strip_prefix(':')?;
        let (number, message) = rest.split_once(' ')?;
        let line = match number {
            "" => None,
            number => Some(number.strip_suffix(':')?.parse().ok()?),
        };
        Some(of_builds(Problem { path: file.to_owned(), line, message: message.to_owned() }))
    };
    output.lines().filter_map(read_line).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn output_other_than_problems_is_skipped() {
        let output = "f the recipe:9: cut off\nnote\na\\nb:12: not: right\na\\nb: unreadable\n\
            a\\nb:x: no line\na\\nb:3 no colon\na\\nb\nother:1: x\na\\nbc:1: x\na\\nb:7: é\n";
        let found: Vec<String> = read(output, Path::new("a\nb")).iter().map(ToString::to_string).collect();
        assert_eq!(
            found,
            [
                "a\\nb:12: its builds will fail: not: right",
                "a\\nb: its builds will fail: unreadable",
                "a\\nb:7: its builds will fail: é",
            ]
        );
    }
}
