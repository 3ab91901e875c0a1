//! Where a source stands: independent parts, each the plugin's own bytes.

use crate::failure::Failure;

pub use crate::bindings::imports::wasmflow::plugin::positions::Part;

impl Part {
    /// One part, as it stands now.
    pub fn new(key: impl Into<Vec<u8>>, value: impl Into<Vec<u8>>) -> Part {
        Part { key: key.into(), value: Some(value.into()) }
    }

    /// A part that is no more, as a file that was deleted.
    pub fn gone(key: impl Into<Vec<u8>>) -> Part {
        Part { key: key.into(), value: None }
    }
}

/// Where to go on: the newest value of each part that the source has brought. Empty the first time.
#[derive(Clone, Debug, Default)]
pub struct Position(Vec<Part>);

impl Position {
    /// The value of one part.
    pub fn get(&self, key: impl AsRef<[u8]>) -> Option<&[u8]> {
        let part = self.0.iter().find(|part| part.key == key.as_ref())?;
        part.value.as_deref()
    }

    /// The value of one part that is a number in decimal.
    ///
    /// # Errors
    ///
    /// `Fatal` when it is anything else: this is not the position of this source.
    pub fn number(&self, key: impl AsRef<[u8]>) -> Result<Option<u64>, Failure> {
        let Some(value) = self.get(key) else { return Ok(None) };
        let number = std::str::from_utf8(value).ok().and_then(|text| text.parse().ok());
        number.map(Some).ok_or_else(|| Failure::fatal("the stored position is no number"))
    }

    /// All parts that are there.
    pub fn iter(&self) -> impl Iterator<Item = (&[u8], &[u8])> {
        self.0.iter().filter_map(|part| Some((&part.key[..], part.value.as_deref()?)))
    }

    /// Whether there is none: the source starts for the first time.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl FromIterator<Part> for Position {
    /// Applies the parts in order, as the host does: the newest value of each key stays.
    fn from_iter<I: IntoIterator<Item = Part>>(parts: I) -> Position {
        let mut newest = std::collections::BTreeMap::new();
        for part in parts {
            match part.value {
                Some(value) => newest.insert(part.key, value),
                None => newest.remove(&part.key),
            };
        }
        Position(newest.into_iter().map(|(key, value)| Part::new(key, value)).collect())
    }
}

impl From<Vec<Part>> for Position {
    fn from(parts: Vec<Part>) -> Position {
        parts.into_iter().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_value_of_each_part_stays() {
        let position =
            Position::from(vec![Part::new("a", "1"), Part::new("b", "1"), Part::new("a", "2"), Part::gone("b")]);
        assert_eq!(position.get("a"), Some(&b"2"[..]));
        assert_eq!(position.get("b"), None);
        assert_eq!(position.iter().count(), 1);
    }

    #[test]
    fn a_number_is_read_or_refused() {
        let position = Position::from(vec![Part::new("next", "12"), Part::new("odd", "x")]);
        assert_eq!(position.number("next"), Ok(Some(12)));
        assert_eq!(position.number("none"), Ok(None));
        assert!(matches!(position.number("odd"), Err(Failure::Fatal(_))));
    }
}
