//! How a sweep stands, for the live line of a terminal. Pure.

use std::fmt;

use peipkg_format::problem::OneLine;

use super::moment::Moment;

/// How a farm's sweep stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Progress {
    /// How many upstreams were listed, with success or without.
    pub polled: usize,
    /// How many there are.
    pub upstreams: usize,
    /// How many versions wait to be built.
    pub queued: usize,
    /// What goes on: `building libz 1.3.1-1`, and since when.
    pub work: Option<(String, Moment)>,
}

impl fmt::Display for Progress {
    /// `polled 37 of 200, 12 queued, building libz 1.3.1-1`
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "polled {} of {}, {} queued", self.polled, self.upstreams, self.queued)?;
        // A recipe's name is whatever a directory may be called.
        self.work.as_ref().map_or(Ok(()), |(work, _)| write!(f, ", {}", OneLine(work)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_line_says_what_there_is() {
        let mut progress = Progress { polled: 1, upstreams: 3, queued: 0, work: None };
        assert_eq!(progress.to_string(), "polled 1 of 3, 0 queued");
        progress.work = Some(("building libz 1.3.1-1".to_owned(), Moment::ZERO));
        assert_eq!(progress.to_string(), "polled 1 of 3, 0 queued, building libz 1.3.1-1");
        progress.work = Some(("building it's\u{1b}[2J\u{202e} 1-1".to_owned(), Moment::ZERO));
        assert_eq!(progress.to_string(), "polled 1 of 3, 0 queued, building it's\\u{1b}[2J\\u{202e} 1-1");
    }
}
