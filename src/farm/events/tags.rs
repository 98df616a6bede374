//! The tags of an upstream. Pure.

/// The names of an upstream's tags, without `refs/tags/`, in the server's order.
///
/// They are one text: an upstream may have 250,000, and several listings wait for the core.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Tags {
    /// Each name is followed by a line feed, which git allows in no name.
    text: String,
    len: usize,
}

impl Tags {
    /// Adds a name.
    pub(crate) fn push(&mut self, name: &str) {
        self.text.extend([name, "\n"]);
        self.len += 1;
    }

    /// Takes a text of lines for names. Each line must end with a line feed.
    pub(crate) fn from_lines(text: String) -> Self {
        let len = text.bytes().filter(|byte| *byte == b'\n').count();
        Self { text, len }
    }

    /// Returns the names.
    pub fn iter(&self) -> impl Iterator<Item = &str> {
        self.text.split_terminator('\n')
    }

    /// Returns how many there are.
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// Returns the names as one text. It differs if their order does.
    pub(crate) fn as_text(&self) -> &str {
        &self.text
    }
}

impl<S: AsRef<str>> FromIterator<S> for Tags {
    fn from_iter<I: IntoIterator<Item = S>>(names: I) -> Self {
        let mut tags = Self::default();
        names.into_iter().for_each(|name| tags.push(name.as_ref()));
        tags
    }
}
