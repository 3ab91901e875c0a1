//! Where in the file a key is, for what a reload has to say about it.

use super::difference::Field;
use crate::config::{Diagnostic, FileText, place};

/// A file as it was written.
#[derive(Debug, Clone)]
pub struct Places(FileText);

impl Places {
    pub fn of(file: &FileText) -> Self {
        Self(file.clone())
    }

    pub fn file(&self) -> &FileText {
        &self.0
    }

    /// Whether the file has this key.
    pub fn has(&self, keys: &[&str]) -> bool {
        place(&self.0.text, keys).is_some_and(|(_, depth)| depth == keys.len())
    }
}

/// One problem for each field, at its place, or at the nearest table around it where the key has gone.
pub fn field_problems(places: &Places, fields: &[Field], message: &str, hint: &str) -> Vec<Diagnostic> {
    let problem = |field: &Field| {
        let keys: Vec<&str> = field.iter().map(String::as_str).collect();
        let message = format!("`{}` {message}", field.join("."));
        let problem = match place(&places.0.text, &keys) {
            Some((span, _)) => Diagnostic::error("fixed-field", span, message),
            None => Diagnostic::file_error("fixed-field", message),
        };
        problem.hint(hint)
    };
    fields.iter().map(problem).collect()
}
