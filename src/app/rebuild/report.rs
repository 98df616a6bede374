//! The output of `--rebuild`: lines for people, or one line in logfmt for each package. Pure.

use std::fmt;
use std::io::{self, IsTerminal as _};

use peipkg_format::problem::{OneLine, excerpt};

use crate::app::logfmt::Quoted;
use crate::app::logging;
use crate::app::terminal_line::Colours;
use crate::farm::events::JobKey;

/// How a package compares with the published one.
#[derive(Debug)]
pub(super) enum Verdict {
    /// It is the published one; the text says what may differ, as the signature by another key.
    Same(Option<String>),
    /// It differs: the first differences.
    Different(Vec<String>),
    /// There is nothing to compare with, and why.
    Missing(String),
}

/// The result of a rebuild. Its `Display` form is the output.
#[derive(Debug)]
pub(in crate::app) struct Report {
    key: JobKey,
    /// The tag and the commit.
    source: Option<(String, String)>,
    packages: Vec<(String, Verdict)>,
    notes: Vec<String>,
    /// The colours of the lines for people; without them, the output is logfmt.
    colours: Option<Colours>,
}

impl Report {
    /// Begins the report about a version.
    pub(super) fn of(key: &JobKey) -> Self {
        let colours = io::stdout().is_terminal().then(logging::colours_of_terminal);
        Self { key: key.clone(), source: None, packages: Vec::new(), notes: Vec::new(), colours }
    }

    /// Sets what was built.
    pub(super) fn built(&mut self, tag: &str, commit: &str) {
        self.source = Some((excerpt(tag).into_owned(), commit.to_owned()));
    }

    /// Adds a package.
    pub(super) fn add(&mut self, name: String, verdict: Verdict) {
        self.packages.push((name, verdict));
    }

    /// Adds a note about the whole rebuild.
    pub(super) fn note(&mut self, text: String) {
        self.notes.push(text);
    }

    /// Whether each package is the published one.
    pub(in crate::app) fn is_same(&self) -> bool {
        self.packages.iter().all(|(_, verdict)| matches!(verdict, Verdict::Same(_)))
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let JobKey { recipe, version } = &self.key;
        let (tag, commit) = self.source.as_ref().map_or(("", ""), |(tag, commit)| (tag, commit));
        if let Some(colours) = self.colours {
            let Colours { dim, bold, off, .. } = colours;
            writeln!(f, "{bold}{recipe} {version}{off}  {dim}tag {}, commit {commit}{off}", OneLine(tag))?;
            for note in &self.notes {
                writeln!(f, "  {:<9}  {}", "note", OneLine(note))?;
            }
        } else {
            for note in &self.notes {
                writeln!(f, "recipe={recipe} version={version} rebuild=note reason={}", Quoted(note))?;
            }
        }
        for (name, verdict) in &self.packages {
            let (word, lines) = match verdict {
                Verdict::Same(remark) => ("same", remark.as_slice()),
                Verdict::Different(lines) => ("different", lines.as_slice()),
                Verdict::Missing(reason) => ("missing", std::slice::from_ref(reason)),
            };
            if let Some(Colours { dim, bold, red, off, .. }) = self.colours {
                let colour = if word == "same" { bold } else { red };
                // The lines are of a tool that compares any two packages.
                let order =
                    if word == "different" { ", the first is published, the second rebuilt" } else { "" };
                writeln!(f, "  {colour}{word:<9}{off}  {name}{dim}{order}{off}")?;
                for line in lines {
                    writeln!(f, "             {}", OneLine(line))?;
                }
            } else {
                write!(f, "recipe={recipe} version={version} rebuild={word} package={name}")?;
                write!(f, " tag={} commit={commit}", Quoted(tag))?;
                let reason = lines.join("; ");
                if reason.is_empty() { writeln!(f)? } else { writeln!(f, " reason={}", Quoted(&reason))? }
            }
        }
        Ok(())
    }
}
