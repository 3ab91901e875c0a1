//! Where a source stands: its own bookmarks, one opaque part for each independent thing it reads.

use std::collections::BTreeMap;

use bytes::Bytes;

/// A change of one part of a position: one file, one partition, one table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Part {
    pub key: Bytes,
    /// Nothing means that the part is gone.
    pub value: Option<Bytes>,
}

/// The newest value of each part.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Position(BTreeMap<Bytes, Bytes>);

impl Position {
    /// Takes over changed parts, as a put or a settlement brings them.
    pub fn apply(&mut self, parts: &[Part]) {
        for part in parts {
            match &part.value {
                Some(value) => self.0.insert(part.key.clone(), value.clone()),
                None => self.0.remove(&part.key),
            };
        }
    }

    pub fn get(&self, key: &[u8]) -> Option<&Bytes> {
        self.0.get(key)
    }

    pub fn iter(&self) -> impl Iterator<Item = (&Bytes, &Bytes)> {
        self.0.iter()
    }

    /// All parts, as a new instance is given them.
    pub fn parts(&self) -> Vec<Part> {
        self.iter().map(|(key, value)| Part { key: key.clone(), value: Some(value.clone()) }).collect()
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl FromIterator<(Bytes, Bytes)> for Position {
    fn from_iter<I: IntoIterator<Item = (Bytes, Bytes)>>(parts: I) -> Self {
        Self(parts.into_iter().collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_part_without_value_is_gone() {
        let part =
            |key: &'static str, value: Option<&'static str>| Part { key: key.into(), value: value.map(Bytes::from) };
        let mut position = Position::default();
        position.apply(&[part("a", Some("1")), part("b", Some("1")), part("a", Some("2"))]);
        position.apply(&[part("b", None)]);
        assert_eq!(position.parts(), [part("a", Some("2"))]);
    }
}
