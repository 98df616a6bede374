//! The progress line of a sweep on a terminal: how many upstreams are polled, how many versions wait,
//! and the build in progress with its duration. It is the terminal's last line; the log is written
//! through it, so that the log's lines stay above. Without a terminal there is no line.

use std::io::{self, IsTerminal as _, Write as _};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use peipkg_format::duration;

use crate::farm::moment::Moment;
use crate::farm::progress::Progress;
use crate::process::environment;

/// How often the line is drawn again: it counts seconds.
const TICK: Duration = Duration::from_secs(1);

/// The least time between two changes that are drawn: thousands of polls a second must not wait for
/// a slow terminal. The next tick shows the others.
const PAUSE: Duration = Duration::from_millis(50);

/// Erases the terminal's line, and goes to its beginning.
const ERASE: &str = "\r\x1b[2K";

/// Between these, a terminal cuts what is wider than itself, instead of beginning another line.
const NO_WRAP: [&str; 2] = ["\x1b[?7l", "\x1b[?7h"];

/// The progress line. Clones share one terminal line.
#[derive(Debug, Clone)]
pub(crate) struct Line {
    last: Arc<Mutex<LastLine>>,
    shown: Option<Progress>,
}

/// The terminal's last line. Nothing is drawn while its text is empty.
#[derive(Debug, Default)]
struct LastLine {
    text: String,
    /// When the step began whose seconds it counts.
    since: Option<Instant>,
    drawn: Option<Instant>,
}

impl Line {
    /// Returns the line of the terminal on standard error, or none if standard error is no terminal
    /// or the terminal cannot move its cursor.
    pub(crate) fn of_stderr() -> Option<Self> {
        if !io::stderr().is_terminal() || is_dumb() {
            return None;
        }
        let this = Self { last: Arc::default(), shown: None };
        let line = this.clone();
        let tick = move || loop {
            thread::sleep(TICK);
            line.last().draw(b"");
        };
        // Without the thread the line still shows each change.
        drop(thread::Builder::new().name("ticker".into()).spawn(tick));
        Some(this)
    }

    /// Shows the progress at `now`.
    pub(crate) fn show(&mut self, progress: Progress, now: Moment) {
        if self.shown.as_ref() == Some(&progress) {
            return;
        }
        let elapsed = progress.work.as_ref().map(|(_, started)| now.saturating_since(*started));
        let mut last = self.last();
        last.text = progress.to_string();
        last.since = elapsed.and_then(|elapsed| Instant::now().checked_sub(elapsed));
        if last.drawn.is_none_or(|drawn| drawn.elapsed() >= PAUSE) {
            last.draw(b"");
        }
        drop(last);
        self.shown = Some(progress);
    }

    /// Writes whole lines above the line.
    pub(super) fn write_above(&self, lines: &[u8]) {
        self.last().draw(lines);
    }

    /// Removes the line from the terminal.
    pub(crate) fn clear(&self) {
        let mut last = self.last();
        last.text.clear();
        last.draw(b"");
    }

    fn last(&self) -> MutexGuard<'_, LastLine> {
        self.last.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl LastLine {
    /// Draws the line again, below `log`. One write: nothing that others write comes between.
    fn draw(&mut self, log: &[u8]) {
        let erase = if self.drawn.take().is_some() { ERASE } else { "" };
        let mut bytes = [erase.as_bytes(), log].concat();
        if !self.text.is_empty() {
            let seconds = |since: Instant| Duration::from_secs(since.elapsed().as_secs());
            let time = self.since.map(|since| format!(" for {}", duration::format(seconds(since))));
            let [cut, wrap] = NO_WRAP;
            bytes.extend([cut, &self.text, time.as_deref().unwrap_or_default(), wrap].concat().into_bytes());
            self.drawn = Some(Instant::now());
        }
        // There is nobody to tell that the terminal is gone.
        let _ = io::stderr().write_all(&bytes);
    }
}

/// Whether the terminal can neither move its cursor nor show colours.
pub(crate) fn is_dumb() -> bool {
    environment::variable("TERM").is_none_or(|term| term == "dumb" || term.is_empty())
}
