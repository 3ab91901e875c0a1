//! A small reader of TOML trees that goes on after a problem, so that all problems of a file come out at once.
//!
//! What a table may hold is declared once, with `table!` in `file.rs`: the declaration is the struct, its reader and its part
//! of the JSON Schema, so the three cannot drift apart.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use serde_json::{Map, Value as Json, json};
use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::diagnostic::{Diagnostic, Span, list_names, nearest_hint};
use super::variables;

/// A value of the file with its place.
pub type Node<'a> = Spanned<DeValue<'a>>;

/// Environment variables, as the process or a test has them.
pub type Environment = dyn Fn(&str) -> Option<OsString> + Send + Sync;

/// Limit: the parser refuses nesting beyond 80 brackets; dotted keys may nest further, and every walk is recursive.
pub const MAX_DEPTH: usize = 100;

/// Something that was read, and where it stood.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct At<T> {
    pub value: T,
    pub span: Span,
}

/// What can stand in a pipeline file.
pub trait Value: Sized {
    /// Nothing, after saying why, where the node is not such a value.
    fn read(node: &Node<'_>, reader: &mut Reader<'_>) -> Option<Self>;

    /// What an editor should accept here.
    fn schema() -> Json;
}

/// Walks the tree, and remembers what is wrong and where it stands.
pub struct Reader<'e> {
    pub environment: &'e Environment,
    /// The whole file.
    pub text: &'e str,
    /// The pipeline file's folder.
    pub base_dir: &'e Path,
    pub diagnostics: Vec<Diagnostic>,
    /// The files that secrets are in.
    pub secret_files: Vec<PathBuf>,
    /// Keys from the top of the file to here, each with the place where it stands.
    path: Vec<At<String>>,
}

impl<'e> Reader<'e> {
    pub fn new(text: &'e str, base_dir: &'e Path, environment: &'e Environment) -> Self {
        Reader { environment, text, base_dir, diagnostics: Vec::new(), secret_files: Vec::new(), path: Vec::new() }
    }

    pub fn push(&mut self, diagnostic: Diagnostic) {
        self.diagnostics.push(diagnostic);
    }

    /// The key whose value is being read.
    pub fn key(&self) -> &str {
        self.path.last().map_or("the file", |key| key.value.as_str())
    }

    /// Where that key stands; the beginning of the file at its top.
    pub fn key_span(&self) -> Span {
        self.path.last().map_or(0..0, |key| key.span.clone())
    }

    /// How messages call the table being read: `[sources.tail]`.
    pub fn table_name(&self) -> String {
        let keys: Vec<&str> = self.path.iter().map(|key| key.value.as_str()).collect();
        if keys.is_empty() { "the file".into() } else { format!("[{}]", keys.join(".")) }
    }

    /// Reads below a key.
    pub fn within<T>(&mut self, key: At<String>, read: impl FnOnce(&mut Self) -> T) -> T {
        self.path.push(key);
        let result = read(self);
        self.path.pop();
        result
    }

    /// Says that the node is of another type than `expected`, with an example of what would be right.
    pub fn wrong_type(&mut self, node: &Node<'_>, expected: &str, example: &str) {
        let message = format!("`{}` must be {expected}, not {}", self.key(), type_name(node.get_ref()));
        let hint = format!("as in `{} = {example}`", self.key());
        self.push(Diagnostic::error("wrong-type", node.span(), message).hint(hint));
    }

    pub fn table<'n, 'a>(&mut self, node: &'n Node<'a>) -> Option<&'n DeTable<'a>> {
        let table = node.get_ref().as_table();
        if table.is_none() {
            self.wrong_type(node, "a table", "{ … }");
        }
        table
    }

    /// A string, with `${NAME}` replaced.
    pub fn string(&mut self, node: &Node<'_>, example: &str) -> Option<String> {
        let Some(text) = node.get_ref().as_str() else {
            self.wrong_type(node, "a string", example);
            return None;
        };
        self.substituted(text, node.span())
    }

    /// A string's text, with `${NAME}` replaced.
    pub fn substituted(&mut self, text: &str, span: Span) -> Option<String> {
        variables::substitute(text, span, self.environment).map_err(|problem| self.push(problem)).ok()
    }

    /// One key of a table. Says so when it is required and absent.
    pub fn field<T: Value>(&mut self, table: &DeTable<'_>, name: &str, is_required: bool) -> Option<At<T>> {
        match entry(table, name) {
            Some((key_span, node)) => {
                let key = At { value: name.to_owned(), span: key_span };
                let value = self.within(key, |reader| T::read(node, reader))?;
                Some(At { value, span: node.span() })
            }
            None => {
                if is_required {
                    let message = format!("{} lacks `{name}`", self.table_name());
                    self.push(Diagnostic::error("missing-key", self.key_span(), message).hint(lacking_hint::<T>(name)));
                }
                None
            }
        }
    }

    /// Refuses keys that are in neither list; those of `later` with the word that they are for a later version.
    pub fn known_keys(&mut self, table: &DeTable<'_>, known: &[&str], later: &[&str]) {
        for key in table.keys().filter(|key| !known.contains(&key.get_ref().as_ref())) {
            let name = key.get_ref().as_ref();
            let diagnostic = if later.contains(&name) {
                not_in_this_version(key.span(), &format!("`{name}`"))
            } else {
                let message = format!("unknown key `{name}` in {}", self.table_name());
                Diagnostic::error("unknown-key", key.span(), message).maybe_hint(nearest_hint(
                    name,
                    known.iter().copied(),
                    "key",
                ))
            };
            self.push(diagnostic);
        }
    }
}

/// A feature that the file format knows and this version does not build.
pub fn not_in_this_version(span: Span, feature: &str) -> Diagnostic {
    Diagnostic::error("not-in-this-version", span, format!("{feature} is not in this version of wasmflow"))
}

fn lacking_hint<T: Value>(name: &str) -> String {
    match T::schema()["type"] == "object" {
        true => format!("add a table [{name}]"),
        false => format!("add `{name} = …`"),
    }
}

/// A key's place and its value.
pub fn entry<'n, 'a>(table: &'n DeTable<'a>, name: &str) -> Option<(Span, &'n Node<'a>)> {
    table.get_key_value(name).map(|(key, node)| (key.span(), node))
}

/// A table's entries in the order of the file, since the tree keeps them in the order of their names.
pub fn entries<'n, 'a>(table: &'n DeTable<'a>) -> Vec<(At<String>, &'n Node<'a>)> {
    let at = |key: &Spanned<std::borrow::Cow<'a, str>>| At { value: key.get_ref().to_string(), span: key.span() };
    let mut entries: Vec<_> = table.iter().map(|(key, node)| (at(key), node)).collect();
    entries.sort_by_key(|(key, _)| key.span.start);
    entries
}

/// TOML's types in plain words.
pub fn type_name(value: &DeValue<'_>) -> &'static str {
    match value {
        DeValue::String(_) => "a string",
        DeValue::Integer(_) => "a whole number",
        DeValue::Float(_) => "a number with a fraction",
        DeValue::Boolean(_) => "a boolean",
        DeValue::Datetime(_) => "a date or time",
        DeValue::Array(_) => "a list",
        DeValue::Table(_) => "a table",
    }
}

impl Value for bool {
    fn read(node: &Node<'_>, reader: &mut Reader<'_>) -> Option<Self> {
        let value = node.get_ref().as_bool();
        if value.is_none() {
            reader.wrong_type(node, "true or false", "true");
        }
        value
    }

    fn schema() -> Json {
        json!({ "type": "boolean" })
    }
}

impl Value for String {
    fn read(node: &Node<'_>, reader: &mut Reader<'_>) -> Option<Self> {
        reader.string(node, "\"…\"")
    }

    fn schema() -> Json {
        json!({ "type": "string" })
    }
}

/// A list keeps what could be read of it.
impl<T: Value> Value for Vec<At<T>> {
    fn read(node: &Node<'_>, reader: &mut Reader<'_>) -> Option<Self> {
        let Some(array) = node.get_ref().as_array() else {
            reader.wrong_type(node, "a list", "[…]");
            return None;
        };
        let read = |item: &Node<'_>| Some(At { value: T::read(item, reader)?, span: item.span() });
        Some(array.iter().filter_map(read).collect())
    }

    fn schema() -> Json {
        json!({ "type": "array", "items": T::schema() })
    }
}

/// A table whose keys are names of the operator's own, in the order of the file.
#[derive(Debug, Clone)]
pub struct Named<T>(pub Vec<(At<String>, T)>);

impl<T> Default for Named<T> {
    fn default() -> Self {
        Named(Vec::new())
    }
}

impl<T> Named<T> {
    pub fn iter(&self) -> impl Iterator<Item = &(At<String>, T)> {
        self.0.iter()
    }

    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(|(name, _)| name.value.as_str())
    }
}

impl<T: Value> Value for Named<T> {
    fn read(node: &Node<'_>, reader: &mut Reader<'_>) -> Option<Self> {
        let table = reader.table(node)?;
        let mut named = Vec::new();
        for (name, node) in entries(table) {
            if let Some(problem) = name_problem(&name) {
                reader.push(problem);
            }
            if let Some(value) = reader.within(name.clone(), |reader| T::read(node, reader)) {
                named.push((name, value));
            }
        }
        Some(Named(named))
    }

    fn schema() -> Json {
        json!({ "type": "object", "propertyNames": { "pattern": NAME_PATTERN }, "additionalProperties": T::schema() })
    }
}

const NAME_PATTERN: &str = "^[A-Za-z0-9_][A-Za-z0-9_.-]{0,99}$";

/// Names are metrics labels, parts of folder names and of Kafka ids: letters, digits, `_`, `-`, `.`; at most 100.
pub fn name_problem(name: &At<String>) -> Option<Diagnostic> {
    let text = name.value.as_str();
    let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.');
    if (1..=100).contains(&text.len()) && text.chars().all(allowed) && !text.starts_with(['-', '.']) {
        return None;
    }
    let hint = "names have 1 to 100 letters, digits, `_`, `-` or `.`, and begin with a letter, a digit or `_`";
    Some(Diagnostic::error("bad-name", name.span.clone(), format!("`{text}` cannot be a name")).hint(hint))
}

/// A whole number within bounds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Count<const MIN: u64, const MAX: u64>(pub u64);

impl<const MIN: u64, const MAX: u64> Value for Count<MIN, MAX> {
    fn read(node: &Node<'_>, reader: &mut Reader<'_>) -> Option<Self> {
        let DeValue::Integer(integer) = node.get_ref() else {
            reader.wrong_type(node, "a whole number", &MIN.max(1).to_string());
            return None;
        };
        let number = i128::from_str_radix(integer.as_str(), integer.radix()).unwrap_or(i128::MAX);
        match u64::try_from(number) {
            Ok(count) if (MIN..=MAX).contains(&count) => Some(Count(count)),
            _ => {
                let message = format!("`{}` must be between {MIN} and {MAX}", reader.key());
                let code = if number < 0 { "negative" } else { "out-of-range" };
                reader.push(Diagnostic::error(code, node.span(), message));
                None
            }
        }
    }

    fn schema() -> Json {
        json!({ "type": "integer", "minimum": MIN, "maximum": MAX })
    }
}

/// A word of a fixed set.
pub trait Choice: Sized + Copy + 'static {
    const OPTIONS: &'static [(&'static str, Self)];
    /// Words that the format knows and this version does not build.
    const LATER: &'static [&'static str];
}

/// Reads a choice; its own function, since a blanket `impl Value` would close the trait for others.
pub fn read_choice<C: Choice>(node: &Node<'_>, reader: &mut Reader<'_>) -> Option<C> {
    let words: Vec<&str> = C::OPTIONS.iter().map(|(word, _)| *word).collect();
    let written = reader.string(node, &format!("\"{}\"", words[0]))?;
    if let Some((_, choice)) = C::OPTIONS.iter().find(|(word, _)| *word == written) {
        return Some(*choice);
    }
    let key = reader.key().to_owned();
    let problem = if C::LATER.contains(&written.as_str()) {
        not_in_this_version(node.span(), &format!("`{key} = \"{written}\"`"))
            .hint(format!("this version knows {}", list_names(&words)))
    } else {
        Diagnostic::error("unknown-value", node.span(), format!("`{key}` cannot be `{written}`"))
            .maybe_hint(nearest_hint(&written, words, "value"))
    };
    reader.push(problem);
    None
}

pub fn choice_schema<C: Choice>() -> Json {
    let words: Vec<&str> = C::OPTIONS.iter().map(|(word, _)| *word).collect();
    json!({ "type": "string", "enum": words })
}

/// One property of a table's schema.
pub fn property(mut schema: Json, doc: &[&str], default: Option<&str>) -> Json {
    let text = doc.iter().map(|line| line.trim()).collect::<Vec<_>>().join(" ");
    let object: &mut Map<String, Json> = schema.as_object_mut().expect("every schema here is an object");
    object.insert("description".into(), text.trim().into());
    if let Some(default) = default {
        let value = serde_json::from_str(default).unwrap_or_else(|_| default.into());
        object.insert("default".into(), value);
    }
    schema
}

/// Declares a table of the pipeline file: the struct, its reader and its schema.
///
/// `required` and `optional` say whether the key must be there; `later` keys are known and refused.
macro_rules! table {
    (
        $(#[doc = $doc:literal])*
        pub struct $name:ident {
            $($(#[doc = $field_doc:literal])* $field:ident: $presence:ident $type:ty $(= $default:literal)?,)*
        }
        later [$($later:literal),*]
    ) => {
        $(#[doc = $doc])*
        #[derive(Debug, Clone)]
        pub struct $name {
            $($(#[doc = $field_doc])* pub $field: Option<$crate::config::read::At<$type>>,)*
        }

        impl $crate::config::read::Value for $name {
            fn read(
                node: &$crate::config::read::Node<'_>,
                reader: &mut $crate::config::read::Reader<'_>,
            ) -> Option<Self> {
                let table = reader.table(node)?;
                reader.known_keys(table, &[$($crate::config::read::key_name(stringify!($field))),*], &[$($later),*]);
                Some($name {
                    $($field: reader.field(
                        table,
                        $crate::config::read::key_name(stringify!($field)),
                        stringify!($presence) == "required",
                    ),)*
                })
            }

            fn schema() -> serde_json::Value {
                #[allow(unused_mut)]
                let mut properties = serde_json::Map::new();
                #[allow(unused_mut)]
                let mut required: Vec<&str> = Vec::new();
                $(
                    let key = $crate::config::read::key_name(stringify!($field));
                    if stringify!($presence) == "required" {
                        required.push(key);
                    }
                    let default: Option<&str> = None $(.or(Some($default)))?;
                    let schema = <$type as $crate::config::read::Value>::schema();
                    properties.insert(key.into(), $crate::config::read::property(schema, &[$($field_doc),*], default));
                )*
                serde_json::json!({
                    "type": "object",
                    "properties": properties,
                    "required": required,
                    "additionalProperties": false,
                })
            }
        }
    };
}

/// Declares a choice of words; `later` words are known and refused.
macro_rules! choice {
    (
        $(#[doc = $doc:literal])*
        pub enum $name:ident { $($variant:ident = $word:literal,)* }
        later [$($later:literal),*]
    ) => {
        $(#[doc = $doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub enum $name { $($variant,)* }

        impl $crate::config::read::Choice for $name {
            const OPTIONS: &'static [(&'static str, Self)] = &[$(($word, $name::$variant)),*];
            const LATER: &'static [&'static str] = &[$($later),*];
        }

        impl $crate::config::read::Value for $name {
            fn read(
                node: &$crate::config::read::Node<'_>,
                reader: &mut $crate::config::read::Reader<'_>,
            ) -> Option<Self> {
                $crate::config::read::read_choice(node, reader)
            }

            fn schema() -> serde_json::Value {
                $crate::config::read::choice_schema::<Self>()
            }
        }
    };
}

/// The key of a field: `r#type` is written `type` in the file.
pub fn key_name(field: &'static str) -> &'static str {
    field.strip_prefix("r#").unwrap_or(field)
}

pub(crate) use {choice, table};
