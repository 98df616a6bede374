//! The tags of an upstream. Pure.

use peipkg_format::object_id::{ObjectId, SHA1, SHA256};

/// The tags of an upstream in the server's order: their names, without `refs/tags/`, and what each
/// points to.
///
/// They are one text and one list of bytes: an upstream may have 250,000, and several listings wait
/// for the core.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Tags {
    /// Each name is followed by a line feed, which git allows in no name.
    names: String,
    /// For each tag one of the [`Form`]s, the id of its object, and the id that it is peeled to, if it
    /// has one.
    ids: Vec<u8>,
    len: usize,
}

/// What a listing shows of a tag.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ListedTag {
    /// The object that the tag points to: a tag object, or what a light tag names.
    pub object: ObjectId,
    /// What the tag object leads to, through any number of tag objects: mostly a commit. `None` for a
    /// light tag.
    pub peeled: Option<ObjectId>,
}

/// The length of a tag's ids, and whether there are two.
struct Form {
    length: usize,
    is_peeled: bool,
}

impl ListedTag {
    /// Returns the commit, if the tag is a release. A listing does not tell commits from trees.
    pub fn commit(&self) -> ObjectId {
        self.peeled.unwrap_or(self.object)
    }
}

impl Form {
    const PEELED: u8 = 1;
    const LONG: u8 = 2;

    fn from_byte(byte: u8) -> Self {
        let length = if byte & Self::LONG == 0 { SHA1 } else { SHA256 };
        Self { length, is_peeled: byte & Self::PEELED != 0 }
    }
}

impl Tags {
    /// Adds a tag.
    pub(crate) fn push(&mut self, name: &str, tag: ListedTag) {
        self.names.extend([name, "\n"]);
        push_ids(&mut self.ids, tag);
        self.len += 1;
    }

    /// Takes a text of lines for names, and what [`push_ids`] has written for each. Each line must end
    /// with a line feed.
    pub(crate) fn from_parts(names: String, ids: Vec<u8>) -> Self {
        let len = names.bytes().filter(|byte| *byte == b'\n').count();
        Self { names, ids, len }
    }

    /// Returns the names.
    pub fn iter(&self) -> impl Iterator<Item = &str> {
        self.names.split_terminator('\n')
    }

    /// Returns the names, and what each tag points to.
    pub fn listed(&self) -> impl Iterator<Item = (&str, ListedTag)> {
        let mut ids = &*self.ids;
        let listed = move || {
            let (form, rest) = ids.split_first()?;
            let Form { length, is_peeled } = Form::from_byte(*form);
            let (object, rest) = rest.split_at_checked(length)?;
            let (peeled, rest) = rest.split_at_checked(if is_peeled { length } else { 0 })?;
            ids = rest;
            Some(ListedTag { object: ObjectId::from_bytes(object)?, peeled: ObjectId::from_bytes(peeled) })
        };
        self.iter().zip(std::iter::from_fn(listed))
    }

    /// Returns how many there are.
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// Returns the names and ids as one text and bytes. They differ if the order does.
    pub(crate) fn as_parts(&self) -> (&str, &[u8]) {
        (&self.names, &self.ids)
    }

    /// Gives back the room that later tags would have had.
    pub(crate) fn shrink(&mut self) {
        self.names.shrink_to_fit();
        self.ids.shrink_to_fit();
    }
}

/// Adds the ids of a tag to those of the tags before it.
pub(crate) fn push_ids(ids: &mut Vec<u8>, ListedTag { object, peeled }: ListedTag) {
    // A hostile peeled id of another length is none.
    let peeled = peeled.filter(|peeled| peeled.as_bytes().len() == object.as_bytes().len());
    let long = if object.as_bytes().len() == SHA256 { Form::LONG } else { 0 };
    ids.push(long | if peeled.is_some() { Form::PEELED } else { 0 });
    ids.extend_from_slice(object.as_bytes());
    ids.extend_from_slice(peeled.as_ref().map_or(&[], ObjectId::as_bytes));
}

#[cfg(test)]
impl<S: AsRef<str>> FromIterator<S> for Tags {
    /// Makes light tags of one commit.
    fn from_iter<I: IntoIterator<Item = S>>(names: I) -> Self {
        let mut tags = Self::default();
        let tag = ListedTag { object: ObjectId::from_bytes(&[0; SHA1]).unwrap(), peeled: None };
        names.into_iter().for_each(|name| tags.push(name.as_ref(), tag));
        tags
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(byte: u8, length: usize) -> ObjectId {
        ObjectId::from_bytes(&vec![byte; length]).unwrap()
    }

    #[test]
    fn tags_give_back_names_and_ids_of_every_form() {
        let mut tags = Tags::default();
        let forms = [(20, false), (20, true), (32, true), (32, false), (20, false)];
        let expected: Vec<(String, ListedTag)> = (0u8..)
            .zip(forms)
            .map(|(number, (length, is_annotated))| {
                let peeled = is_annotated.then(|| id(100 + number, length));
                (format!("v{number}"), ListedTag { object: id(number, length), peeled })
            })
            .collect();
        for (name, tag) in &expected {
            tags.push(name, *tag);
        }
        let found: Vec<_> = tags.listed().map(|(name, tag)| (name.to_owned(), tag)).collect();
        assert_eq!(found, expected);
        assert_eq!((tags.len(), tags.iter().last()), (5, Some("v4")));
        assert_eq!((expected[0].1.commit(), expected[1].1.commit()), (id(0, 20), id(101, 20)));
    }
}
