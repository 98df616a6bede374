//! `--plan`: lists every upstream once and says what a sweep would do with each tag.
//!
//! The listings go through the pollers and the core of a sweep, so hosts are treated as a sweep treats
//! them. Changes nothing: takes no lock and creates no file, so it may run beside a manager.

use std::io::{self, IsTerminal as _};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, bounded, unbounded};
use peipkg_format::archive_index::Archive;
use peipkg_format::problem::Problem;
use peipkg_format::regular_file::{self, MAX_INDEX};
use peipkg_format::repository_layout::DESCRIPTOR;

use crate::app::audience::Audience;
use crate::app::error::Error;
use crate::app::logging;
use crate::app::message::Message;
use crate::app::plan_report::Report;
use crate::app::poller;
use crate::app::progress::Line;
use crate::app::service_manager::ServiceManager;
use crate::app::signals::Signals;
use crate::app::startup;
use crate::app::tools::Tools;
use crate::config::Config;
use crate::farm::events::{Effect, Event, Notice, PendingOutputs};
use crate::farm::moment::Moment;
use crate::farm::{Farm, Options, Roster};
use crate::process::Interrupt;
use crate::recipe::Recipe;
use crate::recipe::upstream_url::UpstreamUrl;
use crate::repository::loose;
use crate::repository::pending::{JOB_FILE, Pending};
use crate::repository::published_commits;
use crate::state::state_dir::StateDir;
use crate::upstream::git::Git;
use crate::upstream::listing::{LISTING_DEADLINE, Lister};
use crate::upstream::source::not_commits;

/// How long to wait for the end of a publish of a manager at work, which may be writing the index.
const PUBLISH: Duration = Duration::from_secs(10);

/// How often to look for that end.
const INTERVAL: Duration = Duration::from_millis(100);

/// Makes the plan, and shows its progress on `line`.
///
/// # Errors
/// If a sweep could not start, as far as the plan depends on it.
pub(super) fn plan(config: &Config, line: Option<Line>) -> Result<Report, Error> {
    let mut signals = Signals::register()?;
    let git = Tools::find_git().map_err(|missing| Error::Tools(vec![missing]))?;
    let recipes =
        startup::load_roster(config, &Tools::find_verifiers(), &Roster::new()).map_err(Error::Problems)?;
    let state = Arc::new(StateDir::unlocked(&config.manager.state_dir));
    let interrupt = Interrupt::new()?;
    let (sender, messages) = unbounded();
    signals.forward(Some(sender.clone()), interrupt.clone())?;
    let (requests, pool) = bounded(config.poll.jobs);
    // At the root, git finds no checkout whose configuration it would heed.
    let git = Git::new(git, "/".into()).limits(config.git);
    let lister = Arc::new(Lister::new(Arc::new(git), config.poll.jobs, LISTING_DEADLINE).guessing());
    poller::start(config.poll.jobs, &lister, &pool, &sender, &interrupt)?;

    let table = io::stdout().is_terminal().then(logging::colours_of_terminal);
    let mut report = Report::of(&recipes, table);
    let mut run = Run {
        farm: Farm::new(Options {
            once: true,
            default_interval: config.poll.default_interval,
            poll_jobs: config.poll.jobs,
            // A build would claim packages for one of the recipes that make them.
            build_jobs: 0,
            uploads: false,
            order_seed: None,
        }),
        started: Instant::now(),
        requests,
        audience: Audience::new(line, ServiceManager::nobody(), None),
    };
    let known = known(&state, recipes, &interrupt).map_err(|problem| Error::Problems(vec![problem]))?;
    for event in known {
        run.handle(event, &mut report);
    }
    run.until_all_are_listed(&messages, &signals, &mut report);
    Ok(report)
}

/// Returns what a sweep would know before its first listing has ended. A plan that knows less would have
/// published versions built again.
fn known(
    state: &Arc<StateDir>,
    recipes: Vec<Arc<Recipe>>,
    interrupt: &Interrupt,
) -> Result<Vec<Event>, Problem> {
    let is_paused = is_there(&state.pause())?;
    // Before the index: what is published meanwhile is in one of them.
    let mut outputs = Vec::new();
    let has_outputs = is_there(&state.publish())?;
    if has_outputs {
        let entries = Pending::new(state.clone()).entries();
        for (path, found) in entries.map_err(|error| unknown(&error.path, &error.error))? {
            // A sweep leaves alone what is no build's, but this user may not be the sweep's.
            is_there(&path.join(JOB_FILE))?;
            outputs.extend(found);
        }
    }
    let archive = archive(state, &outputs, interrupt)?;
    if has_outputs {
        let loose = loose::whole_builds(state, &recipes, &archive);
        outputs.extend(loose.map_err(|error| unknown(&error.path, &error.error))?);
    }
    for path in [state.not_commits(), state.published_commits()] {
        if is_there(&path)? {
            regular_file::open(&path).map_err(|error| unknown(&path, &error))?;
        }
    }
    Ok(vec![
        Event::RosterLoaded(Ok(recipes)),
        Event::PauseFound(is_paused),
        Event::ArchiveRead(Ok(archive)),
        Event::NoCommitsFound(not_commits::read(&state.not_commits())),
        Event::CommitsFound(published_commits::read(&state.published_commits()).0),
        Event::OutputsFound(outputs),
    ])
}

/// Reads the archive index, if possible when no publish is unsettled: until then, the index may list
/// packages that are not in place, or be restored. Of a publish that a manager is still at work on, the
/// packages count as `pending`.
fn archive(state: &StateDir, pending: &[PendingOutputs], interrupt: &Interrupt) -> Result<Archive, Problem> {
    let is_unsettled = || is_there(&state.journal());
    let deadline = Instant::now() + PUBLISH;
    while Instant::now() < deadline && !interrupt.is_triggered() {
        if !is_unsettled()? {
            let archive = read_archive(state);
            if !is_unsettled()? {
                return archive;
            }
        }
        let is_held = state.is_locked().map_err(|error| unknown(&error.path, &error.error))?;
        if !is_held && is_unsettled()? {
            let message = "a publish was cut short, and only a start of the manager, or --once, finds out \
                           what is published";
            return Err(Problem::of_file(state.journal(), message));
        }
        std::thread::sleep(INTERVAL);
    }
    let mut archive = read_archive(state)?;
    for PendingOutputs { key, packages, .. } in pending {
        archive.remove(packages, &key.version);
    }
    Ok(archive)
}

/// Reads the archive index; it is empty if there is no repository yet.
fn read_archive(state: &StateDir) -> Result<Archive, Problem> {
    let (descriptor, index) = (state.repo().join(DESCRIPTOR), state.archive_index());
    if !is_there(&descriptor)? {
        if is_there(&index)? {
            let message = "missing, but the index is there: a sweep would not start";
            return Err(Problem::of_file(descriptor, message));
        }
        return Ok(Archive::default());
    }
    let file = regular_file::open_up_to(&index, MAX_INDEX).map_err(|error| unknown(&index, &error))?;
    Archive::read(file).map_err(|error| unknown(&index, &error.into()))
}

/// Whether something is at `path`.
fn is_there(path: &Path) -> Result<bool, Problem> {
    match path.symlink_metadata() {
        Ok(_) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(unknown(path, &error)),
    }
}

/// The problem that what is at `path` cannot be known.
fn unknown(path: &Path, error: &io::Error) -> Problem {
    let is_denied = error.kind() == io::ErrorKind::PermissionDenied;
    let advice = if is_denied { "; run --plan as the manager's user" } else { "" };
    Problem::of_file(path, format!("{error}; the plan must know what a sweep would find there{advice}"))
}

/// The sweep that only lists.
struct Run {
    farm: Farm,
    started: Instant,
    requests: Sender<UpstreamUrl>,
    audience: Audience,
}

impl Run {
    fn until_all_are_listed(mut self, messages: &Receiver<Message>, signals: &Signals, report: &mut Report) {
        while !self.farm.has_listed_all() {
            self.audience.show(self.farm.progress(), self.now());
            let message = match self.farm.next_deadline() {
                Some(deadline) => messages.recv_deadline(self.started + deadline.since_start()).ok(),
                None => messages.recv().ok(),
            };
            match message {
                Some(Message::Event(event)) => self.handle(event, report),
                // The rest stays unknown.
                Some(Message::Wake) if signals.take_stops() > 0 => break,
                Some(Message::Wake | Message::Snapshot(_)) => {}
                None => self.handle(Event::DeadlineReached, report),
            }
        }
        report.finish(self.farm.pending());
        self.audience.leave();
    }

    fn now(&self) -> Moment {
        Moment::from_duration(self.started.elapsed())
    }

    fn handle(&mut self, event: Event, report: &mut Report) {
        if let Event::PollFinished { upstream, .. } = &event {
            self.audience.on_listing_ended(upstream);
        }
        if let Event::PollFinished { upstream, tags: Ok(tags) } = &event {
            for (recipe, plan) in self.farm.plans(upstream, tags) {
                report.set(&recipe, Ok(plan));
            }
        }
        let now = self.now();
        for effect in self.farm.handle(event, now) {
            match effect {
                // The channel has room for as many as the core starts.
                Effect::StartPoll(upstream) => {
                    self.audience.on_listing_started(&upstream, now);
                    drop(self.requests.send(upstream));
                }
                Effect::Report(Notice::PollFailed { recipe, reason, .. }) => {
                    report.set(&recipe, Err(reason));
                }
                // The plan performs nothing else, so the core waits for the builds that it has started.
                _ => {}
            }
        }
    }
}
