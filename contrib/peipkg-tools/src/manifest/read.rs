//! Deserializers that stop at the longest list that the format allows (PSD-009 §3.2.10).
//!
//! A list takes many times more memory than its JSON, so a check after reading would come too late.

use std::collections::BTreeMap;
use std::fmt;
use std::marker::PhantomData;

use serde::de::{Deserialize, Deserializer, Error, MapAccess, SeqAccess, Visitor};

use super::{Claim, MAX_SLOTS};

/// Reads a list of at most `MOST` values.
pub(super) fn list<'de, const MOST: usize, T: Deserialize<'de>, D: Deserializer<'de>>(
    from: D,
) -> Result<Vec<T>, D::Error> {
    struct List<const MOST: usize, T>(PhantomData<T>);

    impl<'de, const MOST: usize, T: Deserialize<'de>> Visitor<'de> for List<MOST, T> {
        type Value = Vec<T>;

        fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
            write!(out, "a list")
        }

        fn visit_seq<A: SeqAccess<'de>>(self, mut values: A) -> Result<Vec<T>, A::Error> {
            let mut found = Vec::new();
            while let Some(value) = values.next_element()? {
                if found.len() == MOST {
                    return Err(A::Error::custom(format_args!("a list has more than {MOST} entries")));
                }
                found.push(value);
            }
            Ok(found)
        }
    }

    from.deserialize_seq(List::<MOST, T>(PhantomData))
}

/// Reads the slots of a claim, at most [`MAX_SLOTS`].
pub(super) fn slots<'de, D: Deserializer<'de>>(from: D) -> Result<BTreeMap<String, Claim>, D::Error> {
    struct Slots;

    impl<'de> Visitor<'de> for Slots {
        type Value = BTreeMap<String, Claim>;

        fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
            write!(out, "an object of slots")
        }

        fn visit_map<A: MapAccess<'de>>(self, mut slots: A) -> Result<Self::Value, A::Error> {
            let mut found = BTreeMap::new();
            while let Some((name, claim)) = slots.next_entry()? {
                found.insert(name, claim);
                if found.len() > MAX_SLOTS {
                    return Err(A::Error::custom(format_args!("claims has more than {MAX_SLOTS} slots")));
                }
            }
            Ok(found)
        }
    }

    from.deserialize_map(Slots)
}
