//! The progress line of a sweep on a terminal: how many upstreams are polled, how many versions wait,
//! and the build in progress with its duration. It is the terminal's last line; the log is written
//! through it, so that the log's lines stay above. Without a terminal there is no line.

use std::fmt;
use std::io::{self, IsTerminal as _};
use std::thread;
use std::time::Duration;

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, unbounded};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressState, ProgressStyle};
use peipkg_format::duration;

use crate::farm::moment::Moment;
use crate::farm::progress::Progress;
use crate::process::environment;

/// How often the line is redrawn during a build: it counts seconds.
const TICK: Duration = Duration::from_secs(1);

/// The progress line. Clones share one terminal line.
#[derive(Debug, Clone)]
pub(crate) struct Line {
    bar: ProgressBar,
    shown: Option<Progress>,
    /// Tells the ticker whether to count.
    counts: Sender<bool>,
}

impl Line {
    /// Returns the line of the terminal on standard error, or none if standard error is no terminal
    /// or the terminal cannot move its cursor.
    pub(crate) fn of_stderr() -> Option<Self> {
        if !io::stderr().is_terminal() || is_dumb() {
            return None;
        }
        let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr());
        let (counts, is_counting) = unbounded();
        let line = Self { bar, shown: None, counts };
        // Set a template and a message now: the default style would draw a bar below the log lines
        // of the start.
        line.set_work(None);
        line.bar.set_message("starting");
        if line.bar.is_hidden() {
            return None;
        }
        // indicatif's own ticker starts a thread for each build, and panics without it.
        let bar = line.bar.clone();
        let ticker = thread::Builder::new().name("ticker".into()).spawn(move || tick(&bar, &is_counting));
        // Without the thread the line still shows each change.
        drop(ticker);
        Some(line)
    }

    /// Shows the progress at `now`.
    pub(crate) fn show(&mut self, progress: Progress, now: Moment) {
        if self.shown.as_ref() == Some(&progress) {
            return;
        }
        let work = |progress: &Progress| progress.work.clone();
        if self.shown.as_ref().map(work) != Some(work(&progress)) {
            self.set_work(progress.work.as_ref().map(|(_, started)| now.saturating_since(*started)));
        }
        self.bar.set_message(progress.to_string());
        self.shown = Some(progress);
    }

    /// Counts the seconds of a step that has taken `elapsed` so far, or counts none.
    fn set_work(&self, elapsed: Option<Duration>) {
        let template = if elapsed.is_some() { "{msg} for {time}" } else { "{msg}" };
        // A test holds that the templates are valid.
        if let Ok(style) = ProgressStyle::with_template(template) {
            let time = |state: &ProgressState, out: &mut dyn fmt::Write| {
                let _ = out.write_str(&duration::format(Duration::from_secs(state.elapsed().as_secs())));
            };
            self.bar.set_style(style.with_key("time", time));
        }
        if let Some(elapsed) = elapsed {
            self.bar.reset_elapsed();
            self.bar.set_elapsed(elapsed);
        }
        // Fails only without the thread.
        let _ = self.counts.send(elapsed.is_some());
    }

    /// Removes the line from the terminal.
    pub(crate) fn clear(&self) {
        let _ = self.counts.send(false);
        self.bar.finish_and_clear();
    }
}

/// Whether the terminal can neither move its cursor nor show colours.
pub(crate) fn is_dumb() -> bool {
    environment::variable("TERM").is_none_or(|term| term == "dumb" || term.is_empty())
}

/// Redraws the line every [`TICK`] while it counts. Sleeps otherwise.
fn tick(bar: &ProgressBar, is_counting: &Receiver<bool>) {
    let mut counts = false;
    loop {
        let next = if counts {
            is_counting.recv_timeout(TICK)
        } else {
            is_counting.recv().map_err(|_| RecvTimeoutError::Disconnected)
        };
        match next {
            Ok(change) => counts = change,
            Err(RecvTimeoutError::Timeout) => bar.tick(),
            Err(RecvTimeoutError::Disconnected) => return,
        }
    }
}

/// Writes above the line.
impl io::Write for Line {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.bar.suspend(|| io::stderr().write(bytes))
    }

    fn flush(&mut self) -> io::Result<()> {
        io::stderr().flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn templates_are_valid() {
        for template in ["{msg} for {time}", "{msg}"] {
            assert!(ProgressStyle::with_template(template).is_ok());
        }
    }
}
