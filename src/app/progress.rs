//! The progress line of a sweep on a terminal: how many upstreams are polled, how many versions wait,
//! and the build in progress with its duration. It is the terminal's last line; the log is written
//! through it, so that the log's lines stay above. Without a terminal there is no line.

use std::fmt;
use std::io::{self, IsTerminal as _};
use std::time::Duration;

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
}

impl Line {
    /// Returns the line of the terminal on standard error, or none if standard error is no terminal
    /// or the terminal cannot move its cursor.
    pub(crate) fn of_stderr() -> Option<Self> {
        if !io::stderr().is_terminal() || environment::variable("TERM").is_none_or(|term| term == "dumb") {
            return None;
        }
        let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr());
        let line = Self { bar, shown: None };
        // Set a template and a message now: the default style would draw a bar below the log lines
        // of the start.
        line.set_work(None);
        line.bar.set_message("starting");
        (!line.bar.is_hidden()).then_some(line)
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
        match elapsed {
            Some(elapsed) => {
                self.bar.reset_elapsed();
                self.bar.set_elapsed(elapsed);
                self.bar.enable_steady_tick(TICK);
            }
            None => self.bar.disable_steady_tick(),
        }
    }

    /// Removes the line from the terminal.
    pub(crate) fn clear(&self) {
        self.bar.finish_and_clear();
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
