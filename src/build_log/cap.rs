//! How much of a log is kept: its head and its tail, and between them a line that says how much is left out. Pure.
//!
//! A log grows at its end. Each time it has reached its limit, what is behind the head and before the tail is taken
//! out, and it grows on. So it can be read at any time, and never takes more than the limit.

/// What is kept of a log.
#[derive(Debug, Clone, Copy)]
pub(super) struct Cap {
    /// This much of its beginning, in bytes, or less by the rest of a line.
    pub(super) head: u64,
    /// At least this much of its end, in bytes, or less by the rest of a line; at most twice as much.
    pub(super) tail: u64,
}

/// The cap of a build's log. A mebibyte is some ten thousand lines. At the beginning a build says what it has found
/// and how it is configured, at its end why it fails, and with many jobs at once the cause is not in the last lines.
pub(super) const CAP: Cap = Cap { head: 1024 * 1024, tail: 1024 * 1024 };

/// Room for the line that marks the cut.
const MARK: u64 = 80;

/// How far the end of a line is looked for, so that no line is cut, in bytes.
const NEAR: u64 = 4096;

impl Cap {
    /// How long a log may become, in bytes.
    pub(super) fn limit(self) -> u64 {
        self.head + MARK + 2 * self.tail
    }

    /// How far from a place that is to be cut the end of a line is looked for.
    pub(super) fn near(self) -> u64 {
        NEAR.min(self.head / 2).min(self.tail / 2)
    }
}

/// How a log's file is laid out.
#[derive(Debug)]
pub(super) struct Layout {
    cap: Cap,
    length: u64,
    cut: Option<Cut>,
}

/// The place where something is left out.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Cut {
    head_end: u64,
    tail_start: u64,
    left_out: u64,
}

/// How the middle is taken out: write `mark` at `mark_at`, move everything from `from` on behind it, and end the file
/// at `length`. What moves does not overlap where it comes from.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Move {
    pub(super) mark: String,
    pub(super) mark_at: u64,
    pub(super) from: u64,
    pub(super) to: u64,
    pub(super) length: u64,
}

impl Layout {
    /// An empty log.
    pub(super) fn new(cap: Cap) -> Self {
        Self { cap, length: 0, cut: None }
    }

    /// Where the next bytes are written.
    pub(super) fn length(&self) -> u64 {
        self.length
    }

    /// How many of `wanted` bytes fit behind it. None: first the middle has to go.
    pub(super) fn room(&self, wanted: usize) -> usize {
        let left = self.cap.limit().saturating_sub(self.length);
        usize::try_from(left).map_or(wanted, |left| wanted.min(left))
    }

    /// Takes note of bytes that were written.
    pub(super) fn grow(&mut self, written: usize) {
        self.length += written as u64;
    }

    /// Where to look for the end of the line that is to be the head's last, if the head has no end yet: from the first
    /// place to the second, and the nearer to the second the better.
    pub(super) fn head_window(&self) -> Option<(u64, u64)> {
        self.cut.is_none().then_some((self.cap.head - self.cap.near(), self.cap.head))
    }

    /// Where to look for the end of the line before the tail: from the first place to the second, and the nearer to
    /// the first the better.
    pub(super) fn tail_window(&self) -> (u64, u64) {
        let start = self.length.saturating_sub(self.cap.tail);
        (start, self.length.min(start + self.cap.near()))
    }

    /// Takes out the middle. `head_line` and `tail_line` are the places behind the ends of lines that were found in the
    /// windows.
    pub(super) fn take_out_the_middle(&mut self, head_line: Option<u64>, tail_line: Option<u64>) -> Move {
        let head_end = head_line.unwrap_or(self.cap.head);
        let nothing = Cut { head_end, tail_start: head_end, left_out: 0 };
        let Cut { head_end, tail_start: middle, left_out: before } = self.cut.take().unwrap_or(nothing);
        let from = tail_line.unwrap_or_else(|| self.tail_window().0).max(middle);
        let left_out = before + (from - middle);
        // A line that is cut all the same is ended here.
        let new_line = if head_end == self.cap.head { "\n" } else { "" };
        let mark = format!("{new_line}== {left_out} bytes are left out here\n");
        let to = head_end + mark.len() as u64;
        let length = to + (self.length - from);
        self.cut = Some(Cut { head_end, tail_start: to, left_out });
        self.length = length;
        Move { mark, mark_at: head_end, from, to, length }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SMALL: Cap = Cap { head: 100, tail: 200 };

    fn full() -> Layout {
        let mut layout = Layout::new(SMALL);
        layout.grow(layout.room(usize::MAX));
        layout
    }

    #[test]
    fn a_log_grows_to_its_limit() {
        let mut layout = Layout::new(SMALL);
        assert_eq!(layout.room(10), 10);
        layout.grow(570);
        assert_eq!((layout.length(), layout.room(10), layout.room(11)), (570, 10, 10));
        layout.grow(10);
        assert_eq!(layout.room(1), 0);
    }

    #[test]
    fn the_middle_is_taken_out_at_the_ends_of_lines() {
        for (head_line, tail_line, expected) in [
            (Some(90), Some(400), ("== 310 bytes are left out here\n", 90, 400, 121, 301)),
            (None, Some(400), ("\n== 300 bytes are left out here\n", 100, 400, 132, 312)),
            (Some(90), None, ("== 290 bytes are left out here\n", 90, 380, 121, 321)),
            (None, None, ("\n== 280 bytes are left out here\n", 100, 380, 132, 332)),
        ] {
            let mut layout = full();
            assert_eq!(layout.head_window(), Some((50, 100)));
            assert_eq!(layout.tail_window(), (380, 430));
            let Move { mark, mark_at, from, to, length } = layout.take_out_the_middle(head_line, tail_line);
            assert_eq!((&*mark, mark_at, from, to, length), expected);
            assert_eq!(layout.length(), length);
        }
    }

    #[test]
    fn what_is_left_out_adds_up() {
        let mut layout = full();
        let first = layout.take_out_the_middle(Some(90), Some(400));
        assert_eq!((layout.head_window(), first.length), (None, 301));
        layout.grow(layout.room(usize::MAX));
        // The head stays as it is, the old mark goes, and so does the old tail from byte 121 on.
        let second = layout.take_out_the_middle(None, Some(395));
        assert_eq!((second.mark_at, second.from), (90, 395));
        assert_eq!(second.mark, format!("== {} bytes are left out here\n", 310 + (395 - 121)));
    }

    #[test]
    fn the_longest_mark_has_room_and_nothing_overlaps() {
        let mut layout = full();
        layout.cut = Some(Cut { head_end: 100, tail_start: 150, left_out: u64::MAX - 1000 });
        let Move { mark, from, to, length, .. } = layout.take_out_the_middle(None, None);
        assert!(mark.len() as u64 <= MARK, "{mark}");
        assert!(length <= SMALL.limit() - SMALL.tail);
        assert!(length <= from && to < from);
    }
}
