//! The live line of a sweep that somebody watches: what is polled, what waits, what
//! is being built and for how long. It is the last line of the terminal, below the
//! log, which is written through it. Where standard error is no terminal there is none.

use std::fmt;
use std::io::{self, IsTerminal as _};
use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressState, ProgressStyle};
use peipkg_format::duration;

use crate::farm::moment::Moment;
use crate::farm::progress::Progress;
use crate::process::environment;

/// How often the line is drawn anew while something goes on: it counts seconds.
const TICK: Duration = Duration::from_secs(1);

/// The line.
#[derive(Debug, Clone)]
pub(crate) struct Line {
    bar: ProgressBar,
    shown: Option<Progress>,
}

impl Line {
    /// The line of the terminal that standard error is; `None` if it is none, or one that cannot move its cursor.
    pub(crate) fn of_stderr() -> Option<Self> {
        if !io::stderr().is_terminal() || environment::variable("TERM").is_none_or(|term| term == "dumb") {
            return None;
        }
        let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr());
        let line = Self { bar, shown: None };
        // Else a bar is drawn below what the start has to say.
        line.set_work(None);
        line.bar.set_message("starting");
        (!line.bar.is_hidden()).then_some(line)
    }

    /// Shows how the sweep stands at `now`.
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

    /// Counts the seconds of what has been going on for `elapsed`, or none.
    fn set_work(&self, elapsed: Option<Duration>) {
        let template = if elapsed.is_some() { "{msg} for {time}" } else { "{msg}" };
        // The templates are right: there is a test.
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

    /// Takes the line away.
    pub(crate) fn clear(&self) {
        self.bar.finish_and_clear();
    }
}

/// What is written goes above the line.
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
