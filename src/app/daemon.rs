//! The loop: it waits for an event or the next deadline, lets the core decide,
//! and performs what the core asks for. It owns the threads and channels; every
//! other thread only sends it events.
//!
//! `--once` is this same loop with another stopping rule, which the core knows.

use std::hash::{BuildHasher as _, Hasher as _, RandomState};
use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Instant, SystemTime};

use crossbeam_channel::{Receiver, Sender, bounded, unbounded};
use log::info;

use crate::app::builder::{self, Builder};
use crate::app::error::Error;
use crate::app::notices;
use crate::app::poller;
use crate::app::progress::Line;
use crate::app::signals::Signals;
use crate::app::startup::{self, Prepared};
use crate::config::Config;
use crate::farm::events::{Effect, Event, Job};
use crate::farm::moment::Moment;
use crate::farm::status::Calendar;
use crate::farm::{Farm, Options, Outcome};
use crate::http::Board;
use crate::process::Interrupt;
use crate::recipe::upstream_url::UpstreamUrl;
use crate::repository::publish::Publisher;
use crate::repository::upload::{self, Uploader};
use crate::state::state_dir;
use crate::upstream::git::Git;
use crate::upstream::listing::{LISTING_DEADLINE, Lister};
use crate::upstream::source::fetch::Sources;

/// How many messages are handled before the next snapshot is published.
const MESSAGES_A_TURN: usize = 64;

/// What the loop is sent.
#[derive(Debug)]
enum Message {
    /// Something for the core.
    Event(Event),
    /// A signal has come: look at the flags.
    Wake,
}

impl From<Event> for Message {
    fn from(event: Event) -> Self {
        Self::Event(event)
    }
}

/// Runs the farm until the core says that it is over; on `line` it shows how a sweep stands.
///
/// # Errors
/// When it cannot start.
pub(super) fn run(config: Config, once: bool, line: Option<Line>) -> Result<Outcome, Error> {
    state_dir::open_umask();
    let mut signals = Signals::register()?;
    let (polls_interrupt, job_interrupt) = (Interrupt::new()?, Interrupt::new()?);
    // The loop never blocks on its workers: the core gives each no more than it has room for.
    let (sender, messages) = unbounded();
    // Whether there is a loop that can end in good order; until then a signal ends the start.
    let runs = Arc::new(Mutex::new(false));
    signals.forward({
        let (sender, runs, startup) = (sender.clone(), runs.clone(), job_interrupt.clone());
        move |is_stop| {
            let runs = runs.lock().unwrap_or_else(PoisonError::into_inner);
            if is_stop && !*runs {
                startup.trigger();
            }
            sender.send(Message::Wake).is_ok()
        }
    })?;
    let prepared = match startup::prepare(config, &job_interrupt) {
        Err(Error::Repository(error)) if error.is_interrupted() => return Ok(Outcome::Clean),
        prepared => prepared?,
    };
    {
        let mut runs = runs.lock().unwrap_or_else(PoisonError::into_inner);
        if job_interrupt.is_triggered() {
            return Ok(Outcome::Clean);
        }
        *runs = true;
    }
    let http = if once { None } else { startup::open_http(&prepared.config, &prepared.state)? };
    startup::announce(&prepared.config, once);
    let channel = (sender, messages);
    let mut farm = Loop::start(prepared, http, once, signals, channel, polls_interrupt, job_interrupt)?;
    farm.line = line;
    let outcome = farm.run();
    info!("peipkg-manager stopped");
    Ok(outcome)
}

struct Loop {
    farm: Farm,
    started: Instant,
    calendar: Calendar,
    config: Arc<Config>,
    signals: Signals,
    stop_asked: bool,
    publisher: Publisher,
    sender: Sender<Message>,
    messages: Receiver<Message>,
    /// Where snapshots are published, if anybody can ask for them.
    board: Option<Arc<Board>>,
    /// Where the progress of a sweep is shown, if anybody watches.
    line: Option<Line>,
    farm_id: Arc<str>,
    lister: Arc<Lister>,
    poll_requests: Sender<UpstreamUrl>,
    jobs: Sender<Job>,
    uploads: Sender<()>,
    polls_interrupt: Interrupt,
    job_interrupt: Interrupt,
    /// The threads whose work must not be cut off at the end.
    workers: Vec<JoinHandle<()>>,
}

impl Loop {
    /// Starts the threads and tells the core how things stand.
    fn start(
        prepared: Prepared,
        http: Option<startup::Http>,
        once: bool,
        signals: Signals,
        (sender, messages): (Sender<Message>, Receiver<Message>),
        polls_interrupt: Interrupt,
        job_interrupt: Interrupt,
    ) -> Result<Self, Error> {
        let Prepared { config, tools, state, public_keys, publisher, uploader, recipes } = prepared;
        let (poll_requests, requests) = bounded(config.poll.jobs);
        let (jobs, job_queue) = bounded(1);
        let git = Arc::new(Git::new(tools.git, state.sources()));
        let lister = Arc::new(Lister::new(git.clone(), config.poll.jobs, LISTING_DEADLINE));
        poller::start(config.poll.jobs, &lister, &requests, &sender, &polls_interrupt)?;
        let builder = Builder {
            config: config.clone(),
            state: state.clone(),
            sources: Sources::new(git, state.clone()),
            peipkg_build: tools.peipkg_build,
            public_keys,
            publisher: publisher.clone(),
            interrupt: job_interrupt.clone(),
        };
        let mut workers = vec![builder::start(builder, job_queue, sender.clone())?];
        let (uploads, upload_requests) = bounded(1);
        if let Some(uploader) = uploader.clone() {
            workers.push(upload::start(uploader, upload_requests, sender.clone(), job_interrupt.clone())?);
        }

        let options = Options {
            once,
            default_interval: config.poll.default_interval,
            poll_jobs: config.poll.jobs,
            uploads: uploader.is_some(),
            // Another one at each start.
            order_seed: Some(RandomState::new().build_hasher().finish()),
        };
        let mut this = Self {
            farm: Farm::new(options),
            started: Instant::now(),
            calendar: Calendar { started: SystemTime::now() },
            farm_id: Arc::from(config.manager.id.as_str()),
            config,
            signals,
            stop_asked: false,
            publisher,
            sender,
            messages,
            board: None,
            line: None,
            lister,
            poll_requests,
            jobs,
            uploads,
            polls_interrupt,
            job_interrupt,
            workers,
        };
        // A large index takes its time. Meanwhile the first listings are under way and pages are
        // answered; what comes of either is an event, and waits for the loop.
        this.handle(Event::RosterLoaded(Ok(recipes)));
        if let Some(http) = http {
            this.serve(http)?;
        }
        this.refresh_archive();
        this.handle(Event::OutputsFound(this.publisher.pending().list()));
        if uploader.as_ref().is_some_and(Uploader::is_owed) {
            this.handle(Event::UploadOwed);
        }
        Ok(this)
    }

    /// Starts the HTTP side.
    fn serve(&mut self, http: startup::Http) -> io::Result<()> {
        let board = Arc::new(Board::default());
        self.board = Some(board.clone());
        self.publish_status();
        http.server.start(http.secret, board, self.sender.clone())
    }

    /// Shows everybody who asks how things stand now.
    fn publish_status(&mut self) {
        if let Some(board) = &self.board {
            board.publish(self.farm.status(&self.farm_id, self.calendar));
        }
        let now = self.now();
        if let Some(line) = &mut self.line {
            line.show(self.farm.progress(), now);
        }
    }

    /// Waits, decides, performs, until the farm is over.
    fn run(mut self) -> Outcome {
        let outcome = loop {
            self.publish_status();
            if let Some(outcome) = self.farm.outcome(self.now()) {
                break outcome;
            }
            match self.next_message() {
                Some(message) => self.on_messages(message),
                None => self.handle(Event::DeadlineReached),
            }
        };
        if let Some(line) = &self.line {
            line.clear();
        }
        // Closed channels tell builder and uploader to end. The pollers own nothing that
        // could be lost, and one may be waiting for a silent server: they end with the process.
        drop((self.jobs, self.uploads));
        for worker in self.workers {
            // A thread that panicked has said so on standard error.
            let _ = worker.join();
        }
        outcome
    }

    /// Handles a message and those that wait behind it, within limits: a snapshot is
    /// published after each turn, and it costs as much as the roster is long.
    fn on_messages(&mut self, first: Message) {
        let behind: Vec<Message> = self.messages.try_iter().take(MESSAGES_A_TURN - 1).collect();
        for message in std::iter::once(first).chain(behind) {
            match message {
                Message::Wake => self.on_signal(),
                Message::Event(event) => self.on_event(event),
            }
        }
    }

    /// Sleeps until there is a message or the next deadline has come (`None`).
    fn next_message(&self) -> Option<Message> {
        let Some(deadline) = self.farm.next_deadline() else {
            // The workers and the signal thread hold senders as long as the loop lives.
            return self.messages.recv().ok();
        };
        self.messages.recv_deadline(self.started + deadline.since_start()).ok()
    }

    /// Handles an event from a worker; before decisions that depend on the
    /// archive, changes that others have made to it are read.
    fn on_event(&mut self, event: Event) {
        match &event {
            Event::JobFinished(_) | Event::PollFinished { .. } => self.refresh_archive(),
            _ => {}
        }
        self.handle(event);
    }

    fn refresh_archive(&mut self) {
        // What the index says in the middle of a publish need not be true, nor stay.
        if self.publisher.is_unsettled() {
            return;
        }
        let result = self.publisher.archive().read_if_changed();
        if self.publisher.is_unsettled() {
            self.publisher.archive().forget();
        } else if let Some(result) = result {
            self.handle(Event::ArchiveRead(result));
        }
    }

    fn on_signal(&mut self) {
        if self.signals.take_stop() {
            let event = if self.stop_asked { Event::AbortRequested } else { Event::StopRequested };
            self.stop_asked = true;
            self.handle(event);
        }
        if self.signals.take_reload() {
            self.handle(Event::ReloadRequested);
        }
    }

    fn handle(&mut self, event: Event) {
        let effects = self.farm.handle(event, self.now());
        for effect in effects {
            self.perform(effect);
        }
    }

    fn perform(&mut self, effect: Effect) {
        match effect {
            Effect::Report(notice) => notices::log(&notice),
            // Neither send can fail or block: the workers live as long as the
            // loop, and the core never asks for more than they have room for.
            Effect::StartPoll(upstream) => drop(self.poll_requests.send(upstream)),
            Effect::StartJob(job) => drop(self.jobs.send(job)),
            Effect::StartUpload => drop(self.uploads.send(())),
            Effect::DiscardOutputs(outputs) => self.publisher.pending().discard(&outputs),
            Effect::LoadRoster => {
                self.lister.reload();
                let roster = startup::load_roster(&self.config);
                self.handle(Event::RosterLoaded(roster));
            }
            Effect::InterruptPolls => self.polls_interrupt.trigger(),
            Effect::InterruptJob => self.job_interrupt.trigger(),
        }
    }

    fn now(&self) -> Moment {
        Moment::from_duration(self.started.elapsed())
    }
}
