//! The output of `--plan`: a table for people, or one line in logfmt for each tag. Pure.

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::sync::Arc;

use peipkg_format::package::PackageName;
use peipkg_format::problem::{OneLine, excerpt};
use peipkg_format::sort;
use peipkg_format::version::Version;

use crate::app::logfmt::Quoted;
use crate::app::terminal_line::Colours;
use crate::farm::events::JobKey;
use crate::farm::plan::{Action, RecipePlan, TagPlan};
use crate::recipe::Recipe;

/// The widest column of versions or tags, in characters: longer ones move only their own line.
const WIDEST: usize = 32;

/// The plan of a sweep. Its `Display` form is the output of `--plan`.
#[derive(Debug)]
pub(super) struct Report {
    recipes: BTreeMap<Arc<str>, Box<Entry>>,
    /// The colours of the table; without them, the output is logfmt.
    table: Option<Colours>,
}

#[derive(Debug, Default)]
struct Entry {
    /// The recipe, unless only its pending packages are left.
    recipe: Option<Arc<Recipe>>,
    /// Its plan, or why its upstream was not listed; none without an upstream.
    plan: Option<Result<RecipePlan, String>>,
    /// The versions that an earlier run has built and whose tags are not in the plan.
    pending: Vec<Version>,
}

impl Report {
    /// Begins the report about `recipes`, of which none is listed yet. Writes a table if it gets
    /// colours for one.
    pub(super) fn of(recipes: &[Arc<Recipe>], table: Option<Colours>) -> Self {
        let entry = |recipe: &Arc<Recipe>| {
            let plan = recipe.upstream.as_ref().map(|_| Err("interrupted".to_owned()));
            (recipe.id.clone(), Box::new(Entry { recipe: Some(recipe.clone()), plan, pending: Vec::new() }))
        };
        Self { recipes: recipes.iter().map(entry).fold(BTreeMap::new(), sort::entered), table }
    }

    /// Records the plan for a recipe, or why its upstream cannot be listed.
    pub(super) fn set(&mut self, recipe: &Arc<str>, plan: Result<RecipePlan, String>) {
        if let Some(entry) = self.recipes.get_mut(recipe) {
            entry.plan = Some(plan);
        }
    }

    /// Ends the report, when each plan is known that can be. A sweep publishes the `pending` versions,
    /// whatever their recipes and upstreams have become.
    pub(super) fn finish<'a>(&mut self, pending: impl Iterator<Item = &'a JobKey>) {
        for JobKey { recipe, version } in pending {
            let entry = self.recipes.entry(recipe.clone()).or_default();
            let planned = entry.plan.iter().flatten().flat_map(|plan| &plan.tags);
            if !planned.filter_map(|tag| tag.version.as_ref()).any(|planned| planned == version) {
                entry.pending.push(version.clone());
            }
        }
        self.recipes.values_mut().for_each(|entry| sort::sort_by(&mut entry.pending, |a, b| b.sort_cmp(a)));
        self.leave_out_twins();
    }

    /// Leaves out the versions whose packages an earlier recipe makes too: a sweep builds only one of
    /// them.
    fn leave_out_twins(&mut self) {
        let mut makers: HashMap<(&PackageName, Version), &Arc<str>> = HashMap::new();
        for (id, entry) in &mut self.recipes {
            let (Some(recipe), Some(Ok(plan))) = (&entry.recipe, &mut entry.plan) else { continue };
            for tag in plan.tags.iter_mut().filter(|tag| tag.action == Action::Build) {
                let Some(version) = &tag.version else { continue };
                let made = |package| (package, version.clone());
                let twin = recipe
                    .packages
                    .iter()
                    .find_map(|package| makers.get(&made(package)).map(|maker| (package, *maker)));
                if let Some((package, maker)) = twin {
                    let name = &package.name;
                    tag.action = Action::Skip(format!(
                        "recipe {maker} makes package {name} too, and only one of them is built"
                    ));
                } else {
                    makers.extend(recipe.packages.iter().map(|package| (made(package), id)));
                }
            }
        }
    }

    /// Whether each upstream was listed.
    pub(super) fn is_complete(&self) -> bool {
        !self.recipes.values().any(|entry| matches!(entry.plan, Some(Err(_))))
    }

    /// Returns how many tags of which recipes have a plan that `is_meant`.
    fn count(&self, is_meant: impl Fn(&Action) -> bool) -> (usize, usize) {
        let counts = self.recipes.values().map(|entry| {
            let tags = entry.plan.iter().flatten().flat_map(|plan| &plan.tags);
            let pending = entry.pending.iter().map(|_| &Action::Publish);
            tags.map(|tag| &tag.action).chain(pending).filter(|action| is_meant(action)).count()
        });
        counts.filter(|count| *count > 0).fold((0, 0), |(tags, recipes), count| (tags + count, recipes + 1))
    }

    fn write_table(&self, f: &mut fmt::Formatter<'_>, colours: Colours) -> fmt::Result {
        let Colours { dim, bold, red, off, .. } = colours;
        let unlisted = self.recipes.values().filter(|entry| matches!(entry.plan, Some(Err(_))));
        for (id, entry) in &self.recipes {
            let Entry { recipe, plan, pending } = &**entry;
            let upstream = recipe.as_ref().and_then(|recipe| recipe.upstream.as_ref());
            let upstream = upstream.map(|upstream| upstream.url.to_string()).unwrap_or_default();
            write!(f, "{bold}{}{off}  {dim}{}{off}", shown(id), shown(&upstream))?;
            match plan {
                None if recipe.is_none() => writeln!(f, "the recipe is gone")?,
                None => writeln!(f, "no [upstream], never built automatically")?,
                Some(Err(reason)) => writeln!(f, "\n  {red}cannot list it:{off} {}", shown(reason))?,
                Some(Ok(plan)) if plan.tags.is_empty() => {
                    writeln!(f, "\n  {red}{}{off}", shown(&no_match(plan)))?;
                }
                Some(Ok(plan)) => {
                    writeln!(f, "  {dim}{} of {} tags match{off}", plan.tags.len(), plan.tags_seen)?;
                    write_tags(f, &plan.tags, colours)?;
                }
            }
            for version in pending {
                writeln!(f, "  {bold}{:<9}{off}  {version}", word(&Action::Publish))?;
            }
        }
        let (builds, recipes) = self.count(|action| *action == Action::Build);
        let (published, _) = self.count(|action| matches!(action, Action::Published | Action::Moved(_)));
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
        for (id, entry) in &self.recipes {
            let Entry { recipe, plan, pending } = &**entry;
            match plan {
                None if recipe.is_none() => {}
                None => {
                    write_pairs(f, &[("recipe", id), ("plan", "none"), ("reason", "no [upstream]")])?;
                }
                Some(Err(reason)) => {
                    write_pairs(f, &[("recipe", id), ("plan", "unknown"), ("reason", reason)])?;
                }
                Some(Ok(plan)) if plan.tags.is_empty() => {
                    write_pairs(f, &[("recipe", id), ("plan", "none"), ("reason", &no_match(plan))])?;
                }
                Some(Ok(plan)) => {
                    for TagPlan { tag, version, action } in &plan.tags {
                        let mut pairs = vec![("recipe", &**id), ("plan", word(action))];
                        pairs.extend(version.as_ref().map(|version| ("version", version.as_str())));
                        let tag = excerpt(tag);
                        pairs.push(("tag", &tag));
                        if let Action::Skip(reason) | Action::Moved(reason) = action {
                            pairs.push(("reason", reason));
                        }
                        write_pairs(f, &pairs)?;
                    }
                }
            }
            for version in pending {
                let pairs = [("recipe", &**id), ("plan", "publish"), ("version", version.as_str())];
                write_pairs(f, &pairs)?;
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
            Action::Skip(reason) | Action::Moved(reason) => (yellow, reason.as_str()),
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
        Action::Published | Action::Moved(_) => "published",
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
