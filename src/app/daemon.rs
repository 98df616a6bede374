//! The loop: waits for an event or the next deadline, lets the core decide, and performs the effects
//! that the core returns. It owns the threads and channels; every other thread only sends it events.
//! It must not decide anything itself.
//!
//! `--once` is the same loop. Only the core's stopping rule differs.

mod last_notifications;
mod snapshot;

use std::cell::RefCell;
use std::hash::{BuildHasher as _, Hasher as _, RandomState};
use std::io;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Instant, SystemTime};

use crossbeam_channel::{Receiver, Sender, bounded, unbounded};
use log::info;

use crate::app::audience::Audience;
use crate::app::builder::{self, Builder};
use crate::app::error::Error;
use crate::app::message::Message;
use crate::app::notifier::Notifier;
use crate::app::poller;
use crate::app::progress::Line;
use crate::app::publisher::{self, Publisher};
use crate::app::service_manager::ServiceManager;
use crate::app::signals::Signals;
use crate::app::startup::{self, Prepared};
use crate::app::uploader;
use crate::config::Config;
use crate::farm::events::{BuildJob, Effect, Event, PublishJob};
use crate::farm::moment::Moment;
use crate::farm::progress::Tally;
use crate::farm::status::{Calendar, RefusedWebhooks, Status};
use crate::farm::{Farm, Options, Outcome};
use crate::process::Interrupt;
use crate::process::users_of::WorkUsers;
use crate::recipe::upstream_url::UpstreamUrl;
use crate::repository::Repository;
use crate::repository::published_commits;
use crate::repository::upload::Uploader;
use crate::state::state_dir::{self, StateDir};
use crate::state::troubles::Troubles;
use crate::upstream::git::Git;
use crate::upstream::listing::{LISTING_DEADLINE, Lister};
use crate::upstream::source::fetch::Sources;
use crate::upstream::source::not_commits;
use crate::upstream::source::signatures::Verifiers;

/// Runs the farm until the core ends it. Shows the progress of a sweep on `line`.
///
/// # Errors
/// If it cannot start.
pub(super) fn run(config: Config, once: bool, line: Option<Line>) -> Result<Outcome, Error> {
    state_dir::open_umask();
    let mut signals = Signals::register()?;
    // Unbounded, so that a worker never blocks on the loop.
    let (sender, messages) = unbounded();
    // A stop signal ends the start at once. The loop, once it runs, drains instead, and no child of
    // the loop's watches this switch.
    let start_interrupt = Interrupt::new()?;
    signals.forward(Some(sender.clone()), start_interrupt.clone())?;
    // A sweep that ends during its start has left all its work.
    let stopped_early = if once { Outcome::Unfinished } else { Outcome::Clean };
    let prepared = match startup::prepare(config, &start_interrupt) {
        Err(Error::Repository(error)) if error.is_interrupted() => return Ok(stopped_early),
        prepared => prepared?,
    };
    if start_interrupt.is_triggered() {
        return Ok(stopped_early);
    }
    let http = if once { None } else { startup::open_http(&prepared.config, &prepared.state)? };
    startup::announce(&prepared.config, once);
    let (outcome, tally) = Loop::start(prepared, http, once, line, signals, (sender, messages))?.run();
    match tally {
        None => info!("peipkg-manager stopped"),
        Some(Tally { polled, polls_failed, built, published, failed }) => {
            info!(polled, polls_failed, built, published, failed; "peipkg-manager stopped");
        }
    }
    Ok(outcome)
}

struct Loop {
    farm: Farm,
    started: Instant,
    calendar: Calendar,
    config: Arc<Config>,
    signals: Signals,
    is_stopping: bool,
    repository: Arc<Repository>,
    state: Arc<StateDir>,
    verifiers: Arc<Verifiers>,
    sender: Sender<Message>,
    messages: Receiver<Message>,
    /// The last snapshot, unless something has happened since.
    snapshot: Option<Arc<Status>>,
    /// The troubles in that snapshot.
    troubles: Troubles,
    audience: Audience,
    farm_id: Arc<str>,
    lister: Arc<Lister>,
    poll_requests: Sender<UpstreamUrl>,
    builds: Sender<Box<BuildJob>>,
    publishes: Sender<Vec<PublishJob>>,
    uploads: Sender<()>,
    polls_interrupt: Interrupt,
    jobs_interrupt: Interrupt,
    /// The threads to wait for at the end: builders, publisher and uploader.
    workers: Vec<JoinHandle<()>>,
}

impl Loop {
    /// Starts the threads. Gives the core the roster, the archive and the work of earlier runs.
    fn start(
        prepared: Prepared,
        http: Option<startup::Http>,
        once: bool,
        line: Option<Line>,
        signals: Signals,
        (sender, messages): (Sender<Message>, Receiver<Message>),
    ) -> Result<Self, Error> {
        let Prepared { config, tools, verifiers, state, public_keys, repository, uploader, recipes } =
            prepared;
        let farm_id: Arc<str> = Arc::from(config.manager.id.as_str());
        let service = ServiceManager::from_environment();
        let notifier = tools.notify.map(|program| {
            let args = config.notify.command.iter().skip(1).cloned().collect();
            let sender = sender.clone();
            Notifier::start(program, args, farm_id.clone(), move || drop(sender.send(Message::Wake)))
        });
        let notifier = notifier.transpose()?;
        let (polls_interrupt, jobs_interrupt) = (Interrupt::new()?, Interrupt::new()?);
        let (poll_requests, requests) = bounded(config.poll.jobs);
        let git = Arc::new(Git::new(tools.git.clone(), state.sources()).limits(config.git));
        let lister = Lister::new(git.clone(), config.poll.jobs, LISTING_DEADLINE);
        let lister = Arc::new(if once { lister.guessing() } else { lister });
        poller::start(config.poll.jobs, &lister, &requests, &sender, &polls_interrupt)?;
        let mut workers = Vec::new();
        let (builds, build_queue) = bounded(config.build.jobs);
        let sources = Arc::new(Sources::new(git, state.clone()));
        let work_users = Arc::new(WorkUsers::new([state.sources(), state.stage()]));
        for number in 0..config.build.jobs {
            let builder = Builder {
                config: config.clone(),
                state: state.clone(),
                sources: sources.clone(),
                work_users: work_users.clone(),
                git: tools.git.clone(),
                versions: RefCell::default(),
                peipkg_build: tools.peipkg_build.clone(),
                peipkg_repo: tools.peipkg_repo.clone(),
                faketime: tools.faketime.clone(),
                verifiers: verifiers.clone(),
                public_keys: public_keys.clone(),
                repository: repository.clone(),
                interrupt: jobs_interrupt.clone(),
            };
            workers.push(builder::start(builder, number, build_queue.clone(), sender.clone())?);
        }
        // The last builder removes the cached repositories at its end.
        drop(sources);
        let (publishes, groups) = bounded(1);
        let group_publisher = Publisher {
            repository: repository.clone(),
            state: state.clone(),
            interrupt: jobs_interrupt.clone(),
        };
        workers.push(publisher::start(group_publisher, groups, sender.clone())?);
        let (uploads, upload_requests) = bounded(1);
        if let Some(uploader) = uploader.clone() {
            workers.push(uploader::start(uploader, upload_requests, sender.clone(), jobs_interrupt.clone())?);
        }

        let options = Options {
            once,
            default_interval: config.poll.default_interval,
            poll_jobs: config.poll.jobs,
            build_jobs: config.build.jobs,
            uploads: uploader.is_some(),
            // A new one at each start: no recipe comes first every time.
            order_seed: Some(RandomState::new().build_hasher().finish()),
        };
        let mut this = Self {
            farm: Farm::new(options),
            started: Instant::now(),
            calendar: Calendar { started: SystemTime::now() },
            farm_id,
            config,
            signals,
            is_stopping: false,
            repository,
            state,
            verifiers,
            sender,
            messages,
            snapshot: None,
            troubles: Troubles::default(),
            audience: Audience::new(line, service, notifier),
            lister,
            poll_requests,
            builds,
            publishes,
            uploads,
            polls_interrupt,
            jobs_interrupt,
            workers,
        };
        this.look_for_pause();
        // Start the first listings and the HTTP server before reading the archive: a large index
        // takes seconds. Their events wait in the channel.
        this.handle(Event::RosterLoaded(Ok(recipes)));
        if let Some(http) = http {
            this.serve(http)?;
        }
        this.refresh_archive();
        this.handle(Event::CommitsFound(this.repository.published_commits()));
        this.handle(Event::OutputsFound(this.repository.pending().list()));
        this.handle(Event::NoCommitsFound(not_commits::read(&this.state.not_commits())));
        if uploader.as_ref().is_some_and(Uploader::is_owed) {
            this.handle(Event::UploadOwed);
        }
        this.audience.ready();
        Ok(this)
    }

    /// Starts the HTTP server.
    fn serve(&mut self, http: startup::Http) -> io::Result<()> {
        let snapshot = self.snapshot(RefusedWebhooks::default());
        http.server.start(http.secret, snapshot, self.sender.clone())
    }

    fn show_progress(&mut self) {
        if self.audience.wants_progress() {
            self.audience.show(self.farm.progress(), self.now());
        }
    }

    /// Handles messages and deadlines until the core ends the farm.
    fn run(mut self) -> (Outcome, Option<Tally>) {
        let outcome = loop {
            self.show_progress();
            if let Some(outcome) = self.farm.outcome(self.now()) {
                break outcome;
            }
            match self.next_message() {
                Some(Message::Event(event)) => self.on_event(event),
                Some(Message::Wake) => self.on_signal(),
                Some(Message::Snapshot(request)) => {
                    let snapshot = self.snapshot(request.refused);
                    request.answer(snapshot);
                }
                None => self.on_time(),
            }
        };
        self.audience.stopping();
        let outcome = self.finish_notifications(outcome);
        self.audience.beat_to_the_end();
        let tally = self.farm.tally();
        // Close the channels so that builders, publisher and uploader end. Do not wait for the pollers: they
        // have no work to lose, and one may wait for a silent server. They end with the process.
        drop((self.builds, self.publishes, self.uploads));
        for worker in self.workers {
            // A thread that panicked has printed its message to standard error.
            let _ = worker.join();
        }
        self.audience.leave();
        (outcome, tally)
    }

    /// Sleeps until there is a message, or returns none at the next deadline.
    fn next_message(&self) -> Option<Message> {
        let deadline = self.farm.next_deadline().map(|deadline| self.started + deadline.since_start());
        let Some(deadline) = deadline.into_iter().chain(self.audience.next_due()).min() else {
            // This cannot fail: the loop holds a sender itself.
            return self.messages.recv().ok();
        };
        self.messages.recv_deadline(deadline).ok()
    }

    /// Tells the core that its deadline has passed, unless the loop is up only for the watchdog.
    fn on_time(&mut self) {
        let now = self.now();
        if self.farm.next_deadline().is_some_and(|deadline| deadline <= now) {
            self.handle(Event::DeadlineReached);
        }
    }

    /// Handles an event from a worker. Rereads the archive before an event whose handling depends on
    /// it: another program may have published.
    fn on_event(&mut self, event: Event) {
        match &event {
            Event::PollFinished { upstream, .. } => {
                self.audience.on_listing_ended(upstream);
                self.refresh_archive();
            }
            Event::BuildFinished { .. } | Event::PublishFinished(_) => {
                self.refresh_archive();
            }
            _ => {}
        }
        self.handle(event);
    }

    /// Reads the archive index if it has changed. Ignores it while a publish is unsettled: the index
    /// may list packages that are not in place, or be restored.
    fn refresh_archive(&mut self) {
        if self.repository.is_unsettled() {
            return;
        }
        let Some(result) = self.repository.archive().read_if_changed() else { return };
        if self.repository.is_unsettled() {
            self.repository.archive().forget();
        } else {
            self.handle(Event::ArchiveRead(result));
        }
    }

    /// Tells the core whether the file is there that holds builds.
    fn look_for_pause(&mut self) {
        let is_paused = self.state.pause().symlink_metadata().is_ok();
        self.handle(Event::PauseFound(is_paused));
    }

    fn on_signal(&mut self) {
        for _ in 0..self.signals.take_stops() {
            let event = if self.is_stopping { Event::AbortRequested } else { Event::StopRequested };
            self.is_stopping = true;
            self.audience.stopping();
            self.handle(event);
        }
        if self.signals.take_reload() {
            self.audience.reloading();
            self.look_for_pause();
            self.handle(Event::ReloadRequested);
            self.audience.ready();
        }
    }

    fn handle(&mut self, event: Event) {
        self.snapshot = None;
        let effects = self.farm.handle(event, self.now());
        for effect in effects {
            self.perform(effect);
        }
    }

    fn perform(&mut self, effect: Effect) {
        match effect {
            Effect::Report(notice) => self.audience.tell(&notice, &self.farm),
            // A send cannot fail: the workers live as long as the loop. It cannot block: the core
            // never requests more than the channel has room for.
            Effect::StartPoll(upstream) => {
                self.audience.on_listing_started(&upstream, self.now());
                drop(self.poll_requests.send(upstream));
            }
            // In a box, as the linker merges the code of channels whose messages have one size.
            Effect::StartBuild(job) => drop(self.builds.send(Box::new(job))),
            Effect::StartPublish(group) => drop(self.publishes.send(group)),
            Effect::StartUpload => drop(self.uploads.send(())),
            Effect::DiscardOutputs(outputs) => self.repository.discard_published(&outputs),
            Effect::RememberCommits(recipe, listed) => {
                published_commits::add_listed(&self.state.published_commits(), &recipe, &listed);
            }
            Effect::LoadRoster => {
                self.lister.reload();
                let roster = startup::load_roster(&self.config, &self.verifiers, self.farm.roster());
                self.handle(Event::RosterLoaded(roster));
            }
            Effect::InterruptPolls => self.polls_interrupt.trigger(),
            Effect::InterruptJobs => self.jobs_interrupt.trigger(),
        }
    }

    fn now(&self) -> Moment {
        Moment::from_duration(self.started.elapsed())
    }
}
