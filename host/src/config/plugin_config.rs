//! A stage's `config` table: turned into JSON for the plugin, with the place of every value.

use std::collections::{BTreeMap, BTreeSet};

use secrecy::ExposeSecret;
use serde_json::{Map, Value as Json, json};
use toml::de::DeValue;

use super::diagnostic::{Diagnostic, Span};
use super::pipeline::StageConfig;
use super::read::{At, MAX_DEPTH, Node, Reader, Value, entries};
use super::secret::{PLACEHOLDER, Secret, read_secret};

/// Where a value of the configuration stands in the file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// The key; of an item of a list, the item itself.
    pub key: Span,
    pub value: Span,
}

/// A plugin's configuration as JSON, once with its secrets and once without. `Debug` would show them, so there is none.
#[derive(Clone)]
pub struct ConfigTable {
    resolved: Json,
    redacted: Json,
    /// By JSON Pointer.
    places: BTreeMap<String, Place>,
    /// The pointers of values that are secrets.
    secrets: BTreeSet<String>,
    /// Some value could not be read, which has been said; checking the rest against a schema would only repeat it.
    is_partial: bool,
}

impl std::fmt::Debug for ConfigTable {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}", self.redacted)
    }
}

impl Default for ConfigTable {
    fn default() -> Self {
        ConfigTable {
            resolved: json!({}),
            redacted: json!({}),
            places: BTreeMap::new(),
            secrets: BTreeSet::new(),
            is_partial: false,
        }
    }
}

impl ConfigTable {
    pub fn without_places(resolved: Json, redacted: Json) -> Self {
        Self { resolved, redacted, ..Self::default() }
    }

    pub fn resolved(&self) -> &Json {
        &self.resolved
    }

    pub fn is_partial(&self) -> bool {
        self.is_partial
    }

    /// The place of the value at a JSON Pointer, or of the nearest value that contains it.
    pub fn place(&self, pointer: &str) -> Option<&Place> {
        let mut pointer = pointer;
        loop {
            if let Some(place) = self.places.get(pointer) {
                return Some(place);
            }
            pointer = &pointer[..pointer.rfind('/')?];
        }
    }

    pub fn is_secret(&self, pointer: &str) -> bool {
        self.secrets.contains(pointer)
    }

    pub fn stage_config(&self) -> StageConfig {
        StageConfig::new(self.resolved.to_string(), self.redacted.to_string())
    }
}

impl Value for ConfigTable {
    fn read(node: &Node<'_>, reader: &mut Reader<'_>) -> Option<Self> {
        reader.table(node)?;
        let mut config = ConfigTable::default();
        let converted = Converter { config: &mut config, reader }.value(node, "", 0);
        match converted {
            Some((resolved, redacted)) => (config.resolved, config.redacted) = (resolved, redacted),
            None => config.is_partial = true,
        }
        Some(config)
    }

    fn schema() -> Json {
        json!({ "type": "object" })
    }
}

/// A value with and without its secrets.
type Twice = (Json, Json);

struct Converter<'c, 'r, 'e> {
    config: &'c mut ConfigTable,
    reader: &'r mut Reader<'e>,
}

impl Converter<'_, '_, '_> {
    fn value(&mut self, node: &Node<'_>, pointer: &str, depth: usize) -> Option<Twice> {
        if depth > MAX_DEPTH {
            return self.refuse(node, "too-deep", format!("nested deeper than {MAX_DEPTH} tables and lists"));
        }
        if depth > 0 {
            match read_secret(node, self.reader) {
                Secret::No => {}
                Secret::Failed => return None,
                Secret::Resolved(secret) => {
                    self.config.secrets.insert(pointer.to_owned());
                    return Some((secret.expose_secret().into(), PLACEHOLDER.into()));
                }
            }
        }
        match node.get_ref() {
            DeValue::String(text) => self.reader.substituted(text, node.span()).map(twice),
            DeValue::Boolean(value) => Some(twice(*value)),
            DeValue::Datetime(value) => Some(twice(value.to_string())),
            DeValue::Integer(integer) => match i64::from_str_radix(integer.as_str(), integer.radix()) {
                Ok(number) => Some(twice(number)),
                Err(_) => self.refuse(node, "out-of-range", "this number does not fit into 64 bits".into()),
            },
            DeValue::Float(float) => match float.as_str().parse::<f64>() {
                Ok(number) if number.is_finite() => Some(twice(number)),
                _ => self.refuse(
                    node,
                    "wrong-type",
                    "a plugin's configuration is JSON, which has finite numbers only".into(),
                ),
            },
            DeValue::Array(items) => self.array(items, pointer, depth),
            DeValue::Table(table) => self.table(entries(table), pointer, depth),
        }
    }

    fn refuse(&mut self, node: &Node<'_>, code: &'static str, message: String) -> Option<Twice> {
        self.reader.push(Diagnostic::error(code, node.span(), message));
        None
    }

    /// Goes on after an item that is refused, so that every problem is reported.
    fn array(&mut self, items: &[Node<'_>], pointer: &str, depth: usize) -> Option<Twice> {
        let values: Vec<Option<Twice>> = items
            .iter()
            .enumerate()
            .map(|(index, item)| {
                let pointer = format!("{pointer}/{index}");
                self.note(&pointer, item.span(), item.span());
                self.value(item, &pointer, depth + 1)
            })
            .collect();
        let (resolved, redacted): (Vec<Json>, Vec<Json>) =
            values.into_iter().collect::<Option<Vec<_>>>()?.into_iter().unzip();
        Some((resolved.into(), redacted.into()))
    }

    fn table(&mut self, entries: Vec<(At<String>, &Node<'_>)>, pointer: &str, depth: usize) -> Option<Twice> {
        let (mut resolved, mut redacted) = (Map::new(), Map::new());
        let mut is_whole = true;
        for (key, node) in entries {
            let pointer = format!("{pointer}/{}", key.value.replace('~', "~0").replace('/', "~1"));
            self.note(&pointer, key.span.clone(), node.span());
            let name = key.value.clone();
            let config = &mut *self.config;
            let value = self.reader.within(key, |reader| Converter { config, reader }.value(node, &pointer, depth + 1));
            match value {
                Some((full, without)) => {
                    resolved.insert(name.clone(), full);
                    redacted.insert(name, without);
                }
                None => is_whole = false,
            }
        }
        is_whole.then(|| (resolved.into(), redacted.into()))
    }

    fn note(&mut self, pointer: &str, key: Span, value: Span) {
        self.config.places.insert(pointer.to_owned(), Place { key, value });
    }
}

fn twice(value: impl Into<Json>) -> Twice {
    let value = value.into();
    (value.clone(), value)
}
