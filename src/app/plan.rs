//! `--plan`: lists every upstream once and says what a sweep would do with each tag.
//!
//! The listings go through the pollers and the core of a sweep, so hosts are treated as a sweep treats
//! them. Changes nothing: takes no lock and creates no file, so it may run beside a manager.

use std::io::{self, IsTerminal as _};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, bounded, unbounded};
use log::warn;
use peipkg_format::archive_index::Archive;
use peipkg_format::repository_layout::DESCRIPTOR;

use crate::app::audience::Audience;
use crate::app::error::Error;
use crate::app::logging;
use crate::app::plan_report::{Outlook, Report};
use crate::app::poller;
use crate::app::progress::Line;
use crate::app::service_manager::ServiceManager;
use crate::app::signals::Signals;
use crate::app::startup;
use crate::app::tools::Tools;
use crate::config::Config;
use crate::farm::events::{Effect, Event, Notice};
use crate::farm::moment::Moment;
use crate::farm::{Farm, Options, Roster};
use crate::process::Interrupt;
use crate::recipe::Recipe;
use crate::recipe::upstream_url::UpstreamUrl;
use crate::repository::archive_file::ArchiveFile;
use crate::repository::pending::Pending;
use crate::state::state_dir::StateDir;
use crate::upstream::git::Git;
use crate::upstream::listing::{LISTING_DEADLINE, Lister};
use crate::upstream::source::not_commits;

/// How long to wait for the end of a publish of a manager at work, which may be writing the index.
const PUBLISH: Duration = Duration::from_secs(10);

/// How often to look for that end.
const INTERVAL: Duration = Duration::from_millis(100);

/// A message to the plan.
enum Message {
    Event(Event),
    Stop,
}

impl From<Event> for Message {
    fn from(event: Event) -> Self {
        Self::Event(event)
    }
}

/// Makes the plan, and shows its progress on `line`.
///
/// # Errors
/// If a sweep could not start, as far as the plan depends on it.
pub(super) fn plan(config: &Config, line: Option<Line>) -> Result<Report, Error> {
    let mut signals = Signals::register()?;
    let git = Tools::find_git().map_err(|missing| Error::Tools(vec![missing]))?;
    let recipes = startup::load_roster(config, &Roster::new()).map_err(Error::Problems)?;
    let state = Arc::new(StateDir::unlocked(&config.manager.state_dir));
    let interrupt = Interrupt::new()?;
    let (sender, messages) = unbounded();
    signals.forward({
        let (sender, interrupt) = (sender.clone(), interrupt.clone());
        move |is_stop| {
            if is_stop {
                interrupt.trigger();
                let _ = sender.send(Message::Stop);
            }
        }
    })?;
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
            build_jobs: config.build.jobs,
            uploads: false,
            order_seed: None,
        }),
        started: Instant::now(),
        requests,
        audience: Audience::new(line, ServiceManager::nobody(), None),
    };
    for event in known(&state, recipes) {
        run.handle(event, &mut report);
    }
    run.until_all_are_listed(&messages, &mut report);
    Ok(report)
}

/// Returns what a sweep would know before its first listing has ended.
fn known(state: &Arc<StateDir>, recipes: Vec<Arc<Recipe>>) -> Vec<Event> {
    let is_paused = state.pause().symlink_metadata().is_ok();
    let mut events = vec![
        Event::RosterLoaded(Ok(recipes)),
        Event::PauseFound(is_paused),
        Event::ArchiveRead(archive(state)),
        Event::NoCommitsFound(not_commits::read(&state.not_commits())),
    ];
    if state.publish().is_dir() {
        events.push(Event::OutputsFound(Pending::new(state.clone()).list()));
    }
    events
}

/// Reads the archive index; it is empty if there is no repository yet.
fn archive(state: &StateDir) -> Result<Archive, String> {
    if !state.repo().join(DESCRIPTOR).exists() {
        return Ok(Archive::default());
    }
    let file = ArchiveFile::new(state.archive_index());
    let deadline = Instant::now() + PUBLISH;
    loop {
        let is_unsettled = || state.journal().symlink_metadata().is_ok();
        let before = is_unsettled();
        file.forget();
        let read = file.read_if_changed().unwrap_or_else(|| Ok(Archive::default()));
        if !(before || is_unsettled()) || Instant::now() >= deadline {
            return read.inspect_err(|error| warn!(error; "dedup check failed"));
        }
        std::thread::sleep(INTERVAL);
    }
}

/// The sweep that only lists.
struct Run {
    farm: Farm,
    started: Instant,
    requests: Sender<UpstreamUrl>,
    audience: Audience,
}

impl Run {
    fn until_all_are_listed(mut self, messages: &Receiver<Message>, report: &mut Report) {
        while !self.farm.has_listed_all() {
            self.audience.show(self.farm.progress(), self.now());
            let message = match self.farm.next_deadline() {
                Some(deadline) => messages.recv_deadline(self.started + deadline.since_start()).ok(),
                None => messages.recv().ok(),
            };
            match message {
                Some(Message::Event(event)) => self.handle(event, report),
                // The rest stays unknown.
                Some(Message::Stop) => break,
                None => self.handle(Event::DeadlineReached, report),
            }
        }
        self.audience.leave(false);
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
                report.set(&recipe, Outlook::Planned(plan));
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
                    report.set(&recipe, Outlook::Unknown(reason));
                }
                // The plan performs nothing else, so the core waits for the builds that it has started.
                _ => {}
            }
        }
    }
}
