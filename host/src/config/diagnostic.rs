//! One thing to say about a pipeline file: what, where, and what to do about it.

use std::ops::Range;

/// Bytes of the file, from the first to the one behind the last.
pub type Span = Range<usize>;

/// How much it matters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// Nothing is started.
    Error,
    /// It works, and the operator should change it.
    Warning,
    /// It works as it is meant to; the operator should know what that means.
    Note,
}

impl Severity {
    pub fn word(self) -> &'static str {
        match self {
            Severity::Error => "error",
            Severity::Warning => "warning",
            Severity::Note => "note",
        }
    }
}

/// A second place that belongs to the first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Related {
    pub span: Span,
    pub label: String,
}

/// One thing to say. Its text names names, never a secret's value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Diagnostic {
    pub severity: Severity,
    /// Stays the same from release to release, for programs.
    pub code: &'static str,
    pub message: String,
    /// Nothing: the whole file is meant.
    pub span: Option<Span>,
    pub related: Vec<Related>,
    pub hint: Option<String>,
}

impl Diagnostic {
    fn new(severity: Severity, code: &'static str, span: Option<Span>, message: String) -> Self {
        Diagnostic { severity, code, message, span, related: Vec::new(), hint: None }
    }

    pub fn error(code: &'static str, span: Span, message: impl Into<String>) -> Self {
        Self::new(Severity::Error, code, Some(span), message.into())
    }

    pub fn warning(code: &'static str, span: Span, message: impl Into<String>) -> Self {
        Self::new(Severity::Warning, code, Some(span), message.into())
    }

    pub fn note(code: &'static str, span: Span, message: impl Into<String>) -> Self {
        Self::new(Severity::Note, code, Some(span), message.into())
    }

    /// An error of the file as a whole, which has no place in it.
    pub fn file_error(code: &'static str, message: impl Into<String>) -> Self {
        Self::new(Severity::Error, code, None, message.into())
    }

    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    #[must_use]
    pub fn maybe_hint(mut self, hint: Option<String>) -> Self {
        self.hint = hint;
        self
    }

    #[must_use]
    pub fn related(mut self, span: Span, label: impl Into<String>) -> Self {
        self.related.push(Related { span, label: label.into() });
        self
    }

    pub fn is_error(&self) -> bool {
        self.severity == Severity::Error
    }
}

/// The name that was probably meant, or else all that are known.
pub fn nearest_hint<'n>(written: &str, known: impl IntoIterator<Item = &'n str>, what: &str) -> Option<String> {
    let known: Vec<&str> = known.into_iter().collect();
    if let Some(nearest) = nearest(written, &known) {
        return Some(format!("did you mean `{nearest}`?"));
    }
    match known.as_slice() {
        [] => None,
        [only] => Some(format!("the only known {what} is `{only}`")),
        _ => Some(format!("known {what}s are {}", list_names(&known))),
    }
}

/// Limit: a third of the letters may differ, else the suggestion is more puzzling than the list of all names.
fn nearest<'n>(written: &str, known: &[&'n str]) -> Option<&'n str> {
    let distance = |name: &str| strsim::damerau_levenshtein(&written.to_lowercase(), &name.to_lowercase());
    let best = known.iter().copied().min_by_key(|name| distance(name))?;
    let allowed = written.chars().count().max(best.chars().count()).div_ceil(3);
    (distance(best) <= allowed).then_some(best)
}

/// `a`, `b` and `c`.
pub fn list_names<S: AsRef<str>>(names: &[S]) -> String {
    let quoted: Vec<String> = names.iter().map(|name| format!("`{}`", name.as_ref())).collect();
    match quoted.split_last() {
        Some((last, rest)) if !rest.is_empty() => format!("{} and {last}", rest.join(", ")),
        _ => quoted.concat(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_near_miss_is_answered_with_the_name_meant() {
        let hint = nearest_hint("brokres", ["brokers", "topic"], "key");
        assert_eq!(hint.as_deref(), Some("did you mean `brokers`?"));
    }

    #[test]
    fn a_far_miss_is_answered_with_all_names() {
        let hint = nearest_hint("colour", ["topic", "bind"], "key");
        assert_eq!(hint.as_deref(), Some("known keys are `topic` and `bind`"));
        assert_eq!(nearest_hint("colour", [], "key"), None);
    }
}
