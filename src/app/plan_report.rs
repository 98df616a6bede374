//! The output of `--plan`: a table for people, or one line in logfmt for each tag. Pure.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use peipkg_format::problem::{OneLine, excerpt};

use crate::app::logfmt::Quoted;
use crate::app::terminal_line::Colours;
use crate::farm::fate::{Action, RecipePlan, TagPlan};
use crate::recipe::Recipe;
use crate::recipe::upstream_url::UpstreamUrl;

/// The widest column of versions or tags, in characters: longer ones move only their own line.
const WIDEST: usize = 32;

/// The plan of a sweep. Its `Display` form is the output of `--plan`.
#[derive(Debug)]
pub(super) struct Report {
    recipes: BTreeMap<Arc<str>, Entry>,
    /// The colours of the table; without them, the output is logfmt.
    table: Option<Colours>,
}

#[derive(Debug)]
struct Entry {
    upstream: Option<UpstreamUrl>,
    outlook: Outlook,
}

/// What is known of a recipe.
#[derive(Debug)]
pub(super) enum Outlook {
    /// It has no upstream.
    Manual,
    /// Its upstream was listed.
    Planned(RecipePlan),
    /// Its upstream was not listed, for this reason.
    Unknown(String),
}

impl Report {
    /// Begins the report about `recipes`, of which none is listed yet. Writes a table if it gets
    /// colours for one.
    pub(super) fn of(recipes: &[Arc<Recipe>], table: Option<Colours>) -> Self {
        let entry = |recipe: &Arc<Recipe>| {
            let upstream = recipe.upstream.as_ref().map(|upstream| upstream.url.clone());
            let interrupted = || Outlook::Unknown("interrupted".to_owned());
            let outlook = if upstream.is_some() { interrupted() } else { Outlook::Manual };
            (recipe.id.clone(), Entry { upstream, outlook })
        };
        Self { recipes: recipes.iter().map(entry).collect(), table }
    }

    /// Records what has become known of a recipe.
    pub(super) fn set(&mut self, recipe: &Arc<str>, outlook: Outlook) {
        if let Some(entry) = self.recipes.get_mut(recipe) {
            entry.outlook = outlook;
        }
    }

    /// Whether each upstream was listed.
    pub(super) fn is_complete(&self) -> bool {
        !self.recipes.values().any(|entry| matches!(entry.outlook, Outlook::Unknown(_)))
    }

    /// Returns how many tags of which recipes have a plan that `is_meant`.
    fn count(&self, is_meant: impl Fn(&Action) -> bool) -> (usize, usize) {
        let counts = self.recipes.values().map(|entry| match &entry.outlook {
            Outlook::Planned(plan) => plan.tags.iter().filter(|tag| is_meant(&tag.action)).count(),
            _ => 0,
        });
        counts.filter(|count| *count > 0).fold((0, 0), |(tags, recipes), count| (tags + count, recipes + 1))
    }

    fn write_table(&self, f: &mut fmt::Formatter<'_>, colours: Colours) -> fmt::Result {
        let Colours { dim, bold, red, off, .. } = colours;
        let unlisted = self.recipes.values().filter(|entry| matches!(entry.outlook, Outlook::Unknown(_)));
        for (id, Entry { upstream, outlook }) in &self.recipes {
            let upstream = upstream.as_ref().map(ToString::to_string).unwrap_or_default();
            write!(f, "{bold}{}{off}  {dim}{}{off}", shown(id), shown(&upstream))?;
            match outlook {
                Outlook::Manual => writeln!(f, "no [upstream], never built automatically")?,
                Outlook::Unknown(reason) => writeln!(f, "\n  {red}cannot list it:{off} {}", shown(reason))?,
                Outlook::Planned(plan) if plan.tags.is_empty() => {
                    writeln!(f, "\n  {red}{}{off}", shown(&no_match(plan)))?;
                }
                Outlook::Planned(plan) => {
                    writeln!(f, "  {dim}{} of {} tags match{off}", plan.tags.len(), plan.tags_seen)?;
                    write_tags(f, &plan.tags, colours)?;
                }
            }
        }
        let (builds, recipes) = self.count(|action| *action == Action::Build);
        let (published, _) = self.count(|action| *action == Action::Published);
        let (skipped, _) = self.count(|action| matches!(action, Action::Skip(_)));
        let (pending, _) = self.count(|action| *action == Action::Publish);
        write!(f, "\nA sweep would build {} of {}", of(builds, "version"), of(recipes, "recipe"))?;
        if pending > 0 {
            write!(f, " and publish {pending} that {} built", if pending == 1 { "is" } else { "are" })?;
        }
        write!(f, "; {} published, {} skipped", of(published, "tag"), of(skipped, "tag"))?;
        match unlisted.count() {
            0 => writeln!(f),
            count => writeln!(f, "; {red}{} not known{off}", of(count, "recipe")),
        }
    }

    fn write_lines(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (id, Entry { outlook, .. }) in &self.recipes {
            match outlook {
                Outlook::Manual => {
                    write_pairs(f, &[("recipe", id), ("plan", "none"), ("reason", "no [upstream]")])?;
                }
                Outlook::Unknown(reason) => {
                    write_pairs(f, &[("recipe", id), ("plan", "unknown"), ("reason", reason)])?;
                }
                Outlook::Planned(plan) if plan.tags.is_empty() => {
                    write_pairs(f, &[("recipe", id), ("plan", "none"), ("reason", &no_match(plan))])?;
                }
                Outlook::Planned(plan) => {
                    for TagPlan { tag, version, action } in &plan.tags {
                        let mut pairs = vec![("recipe", &**id), ("plan", word(action))];
                        pairs.extend(version.as_ref().map(|version| ("version", version.as_str())));
                        let tag = excerpt(tag);
                        pairs.push(("tag", &tag));
                        if let Action::Skip(reason) = action {
                            pairs.push(("reason", reason));
                        }
                        write_pairs(f, &pairs)?;
                    }
                }
            }
        }
        Ok(())
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.table {
            Some(colours) => self.write_table(f, colours),
            None => self.write_lines(f),
        }
    }
}

/// Writes the tags of a recipe below each other.
fn write_tags(f: &mut fmt::Formatter<'_>, tags: &[TagPlan], colours: Colours) -> fmt::Result {
    let Colours { dim, bold, yellow, off, .. } = colours;
    let version = |tag: &TagPlan| tag.version.as_ref().map_or("-", |version| version.as_str()).to_owned();
    let width = |text: &dyn Fn(&TagPlan) -> String| {
        tags.iter().map(|tag| text(tag).chars().count()).max().unwrap_or_default().min(WIDEST)
    };
    let name = |tag: &TagPlan| shown(&tag.tag);
    let (versions, names) = (width(&version), width(&name));
    for tag in tags {
        let (colour, reason) = match &tag.action {
            Action::Build | Action::Publish => (bold, ""),
            Action::Published => (dim, ""),
            Action::Skip(reason) => (yellow, reason.as_str()),
        };
        let word = word(&tag.action);
        let line = format!("{:versions$}  {:names$}  {}", version(tag), name(tag), shown(reason));
        writeln!(f, "  {colour}{word:<9}{off}  {}", line.trim_end())?;
    }
    Ok(())
}

fn word(action: &Action) -> &'static str {
    match action {
        Action::Build => "build",
        Action::Publish => "publish",
        Action::Published => "published",
        Action::Skip(_) => "skip",
    }
}

fn no_match(plan: &RecipePlan) -> String {
    let example = plan.example.as_ref().map(|tag| format!(", such as {}", excerpt(tag)));
    match (plan.tags_seen, example) {
        (0, _) | (_, None) => "the upstream has no tags".to_owned(),
        (count, Some(example)) => format!("tag_pattern matches none of {}{example}", of(count, "tag")),
    }
}

/// `1 tag`, `2 tags`
fn of(count: usize, noun: &str) -> String {
    format!("{count} {noun}{}", if count == 1 { "" } else { "s" })
}

/// Shows a foreign text without what would end the line or control the terminal, and not at any length.
fn shown(text: &str) -> String {
    OneLine(&excerpt(text)).to_string()
}

fn write_pairs(f: &mut fmt::Formatter<'_>, pairs: &[(&str, &str)]) -> fmt::Result {
    for (number, (key, value)) in pairs.iter().enumerate() {
        let space = if number > 0 { " " } else { "" };
        write!(f, "{space}{key}={}", Quoted(value))?;
    }
    writeln!(f)
}
