//! Reads single fields of an index's head, even of an index that is half written. Pure.

use std::fmt;
use std::io::{BufReader, Read};

use serde::Deserializer as _;
use serde::de::{DeserializeOwned, Error as _, IgnoredAny, MapAccess, Visitor};

/// Returns the value of a field of the index object, if it comes before a fault in the index.
/// Reads no further than that field.
pub(super) fn field<T: DeserializeOwned>(mut index: impl Read, name: &str) -> Option<T> {
    let mut value = None;
    // Ignore the error: `Find` stops the parser with one when it has found the field. `dyn` keeps the
    // program at one copy of the parser.
    let index = BufReader::with_capacity(1024, &mut index as &mut dyn Read);
    let _ = serde_json::Deserializer::from_reader(index).deserialize_map(Find { name, value: &mut value });
    value
}

/// Finds a field of an object, then stops the parser.
struct Find<'a, T> {
    name: &'a str,
    value: &'a mut Option<T>,
}

impl<'de, T: DeserializeOwned> Visitor<'de> for Find<'_, T> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an index")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        while let Some(field) = map.next_key::<String>()? {
            if field == self.name {
                *self.value = Some(map.next_value()?);
                return Err(A::Error::custom("the field is found"));
            }
            map.next_value::<IgnoredAny>()?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn field_is_found_wherever_the_index_breaks_off_behind_it() {
        let whole = r#"{"repo":"r","index_version":17,"packages":[{"index_version":1}]}"#;
        let found = whole.find(",\"packages").unwrap();
        for length in 0..=whole.len() {
            let value = field::<u64>(&whole.as_bytes()[..length], "index_version");
            // A number may be cut short, but no later number is taken for it.
            let expected = if length >= found { Some(17) } else { value.filter(|value| *value == 1) };
            assert_eq!(value, expected, "{}", &whole[..length]);
        }
        let late = r#"{"packages":[{"index_version":1}],"index_version":17}"#;
        assert_eq!(field::<u64>(late.as_bytes(), "index_version"), Some(17));
        for none in ["", "{", "[]", "\0", r#"{"index_version":-1}"#, r#"{"index_version":"1"}"#] {
            assert_eq!(field::<u64>(none.as_bytes(), "index_version"), None, "{none}");
        }
    }
}
