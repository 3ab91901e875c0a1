//! A stage's configuration against its plugin's JSON Schema, with the place of every misfit.

use jsonschema::error::{TypeKind, ValidationErrorKind};
use jsonschema::{ValidationError, Validator};
use serde_json::Value as Json;

use super::diagnostic::{Diagnostic, Span, list_names, nearest_hint};
use super::plugin_config::ConfigTable;
use super::stage::StageTable;

/// Every misfit. A schema that is none is the plugin's fault, and said so.
pub fn check(stage: &StageTable<'_>, config: &ConfigTable, schema: &Json) -> Vec<Diagnostic> {
    match jsonschema::options().build(schema) {
        Ok(validator) => Misfits { stage, config, schema }.all(&validator),
        Err(error) => {
            let message = format!("{}: its plugin's schema is not JSON Schema: {error}", stage.title());
            let problem = Diagnostic::error("bad-plugin", stage.plugin_span(), message);
            vec![problem.hint("mend the schema that the plugin's `describe` answers")]
        }
    }
}

struct Misfits<'m> {
    stage: &'m StageTable<'m>,
    config: &'m ConfigTable,
    schema: &'m Json,
}

impl Misfits<'_> {
    fn all(&self, validator: &Validator) -> Vec<Diagnostic> {
        let errors = validator.iter_errors(self.config.resolved());
        let mut problems: Vec<Diagnostic> = errors.flat_map(|error| self.diagnostics(&error)).collect();
        problems.dedup();
        problems
    }

    fn diagnostics(&self, error: &ValidationError<'_>) -> Vec<Diagnostic> {
        let path = error.instance_path().as_str();
        match error.kind() {
            ValidationErrorKind::AdditionalProperties { unexpected }
            | ValidationErrorKind::UnevaluatedProperties { unexpected } => {
                let known = self.known_keys(error);
                unexpected.iter().map(|key| self.unknown_key(path, key, &known)).collect()
            }
            ValidationErrorKind::AnyOf { context } | ValidationErrorKind::OneOfNotValid { context } => {
                match (meant(context, path), words(context)) {
                    (Some(branch), _) => branch.iter().flat_map(|error| self.diagnostics(error)).collect(),
                    (None, Some(words)) => vec![self.misfit(path, &format!("must be one of {}", list_names(&words)))],
                    (None, None) => vec![self.misfit(path, "fits none of the forms that are accepted here")],
                }
            }
            // This is how `additionalProperties: false` is reported where there are no properties at all.
            ValidationErrorKind::FalseSchema if error.schema_path().as_str().ends_with("/additionalProperties") => {
                let object = self.config.resolved().pointer(path).and_then(Json::as_object);
                object
                    .into_iter()
                    .flat_map(|object| object.keys())
                    .map(|key| self.unknown_key(path, key, &[]))
                    .collect()
            }
            ValidationErrorKind::Required { property } => vec![self.missing_key(path, property)],
            kind => vec![self.misfit(path, &wanted(kind, error))],
        }
    }

    /// Keys that stand beside the refusing keyword in the schema.
    fn known_keys(&self, error: &ValidationError<'_>) -> Vec<String> {
        let path = error.schema_path().as_str();
        let parent = path.rfind('/').map_or("", |slash| &path[..slash]);
        let properties = self.schema.pointer(parent).and_then(|schema| schema["properties"].as_object());
        properties.map_or(Vec::new(), |properties| properties.keys().cloned().collect())
    }

    fn unknown_key(&self, path: &str, key: &str, known: &[String]) -> Diagnostic {
        let pointer = format!("{path}/{}", key.replace('~', "~0").replace('/', "~1"));
        let span = self.config.place(&pointer).map_or(self.whole(), |place| place.key.clone());
        let message = format!("unknown key `{key}` in the configuration of {}", self.stage.title());
        let hint = nearest_hint(key, known.iter().map(String::as_str), "key");
        let hint = hint.or_else(|| Some("this plugin has no configuration".to_owned()).filter(|_| path.is_empty()));
        Diagnostic::error("unknown-key", span, message).maybe_hint(hint)
    }

    fn missing_key(&self, path: &str, property: &Json) -> Diagnostic {
        let key = property.as_str().unwrap_or_default();
        let span = self.config.place(path).map_or(self.whole(), |place| place.key.clone());
        let (what, hint) = match path {
            "" => (self.stage.title(), format!("add to its `config`: `{key} = …`")),
            _ => (
                format!("`{}` of {}", path.trim_start_matches('/').replace('/', "."), self.stage.title()),
                format!("add `{key} = …`"),
            ),
        };
        let about = self.about(key).map(|about| format!("; {key}: {about}")).unwrap_or_default();
        Diagnostic::error("missing-key", span, format!("the configuration of {what} lacks `{key}`")).hint(hint + &about)
    }

    /// What the plugin's schema says about a key of its configuration.
    fn about(&self, key: &str) -> Option<String> {
        let about = self.schema["properties"][key]["description"].as_str()?;
        Some(about.split_whitespace().collect::<Vec<_>>().join(" "))
    }

    /// A value of the wrong form. The value itself is never in the text: it may be a secret, and the line shows the rest.
    fn misfit(&self, path: &str, problem: &str) -> Diagnostic {
        let span = self.config.place(path).map_or(self.whole(), |place| place.value.clone());
        let message = match path.rsplit_once('/') {
            Some((_, key)) if key.parse::<usize>().is_err() => format!("`{key}` of {} {problem}", self.stage.title()),
            Some(_) => format!("this item of {} {problem}", self.stage.title()),
            None => format!("the configuration of {} {problem}", self.stage.title()),
        };
        let key = path.rsplit_once('/').map(|(_, key)| key);
        let about = key.and_then(|key| self.about(key));
        Diagnostic::error("bad-config", span, message).maybe_hint(about)
    }

    fn whole(&self) -> Span {
        self.stage.config.map_or_else(|| self.stage.name.span.clone(), |at| at.span.clone())
    }
}

/// The one branch that the writer meant: the only one whose complaints are not about the type of the value as a whole.
fn meant<'c, 'e>(context: &'c [Vec<ValidationError<'e>>], path: &str) -> Option<&'c Vec<ValidationError<'e>>> {
    let is_another_type = |error: &ValidationError<'_>| {
        error.instance_path().as_str() == path
            && matches!(
                error.kind(),
                ValidationErrorKind::Type { .. }
                    | ValidationErrorKind::Constant { .. }
                    | ValidationErrorKind::Enum { .. }
            )
    };
    let mut likely = context.iter().filter(|branch| !branch.iter().any(is_another_type));
    let first = likely.next()?;
    likely.next().is_none().then_some(first)
}

/// The words of an enumeration that is written as one branch for each word.
fn words(context: &[Vec<ValidationError<'_>>]) -> Option<Vec<String>> {
    let words = context.iter().map(|branch| match branch.first()?.kind() {
        ValidationErrorKind::Constant { expected_value } => Some(vec![word(expected_value)]),
        ValidationErrorKind::Enum { options } => Some(options.as_array()?.iter().map(word).collect()),
        _ => None,
    });
    words.collect::<Option<Vec<_>>>().map(|words| words.concat())
}

fn wanted(kind: &ValidationErrorKind, error: &ValidationError<'_>) -> String {
    match kind {
        ValidationErrorKind::Type { kind: TypeKind::Single(kind) } => {
            format!("must be {}", type_in_words(&kind.to_string()))
        }
        ValidationErrorKind::Type { kind: TypeKind::Multiple(kinds) } => {
            // `null` is how a schema says that a key may be left out, which TOML has no value for.
            let kinds = kinds.iter().map(|kind| kind.to_string()).filter(|kind| kind != "null");
            let kinds: Vec<String> = kinds.map(|kind| type_in_words(&kind)).collect();
            format!("must be {}", kinds.join(" or "))
        }
        ValidationErrorKind::Enum { options } => {
            let words: Vec<String> = options.as_array().into_iter().flatten().map(word).collect();
            format!("must be one of {}", list_names(&words))
        }
        ValidationErrorKind::Constant { expected_value } => format!("must be `{}`", word(expected_value)),
        ValidationErrorKind::Minimum { limit } => format!("must be at least {limit}"),
        ValidationErrorKind::Maximum { limit } => format!("must be at most {limit}"),
        ValidationErrorKind::ExclusiveMinimum { limit } => format!("must be more than {limit}"),
        ValidationErrorKind::ExclusiveMaximum { limit } => format!("must be less than {limit}"),
        ValidationErrorKind::MinLength { limit: 1 } => "must not be empty".into(),
        ValidationErrorKind::MinItems { limit } => format!("must have at least {limit} item(s)"),
        ValidationErrorKind::MinProperties { limit } => format!("must have at least {limit} key(s)"),
        ValidationErrorKind::Pattern { pattern } => format!("must have the form `{pattern}`"),
        _ => format!("is not accepted: {}", error.masked()),
    }
}

fn word(value: &Json) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

/// JSON's types as TOML's writer knows them.
fn type_in_words(json_type: &str) -> String {
    match json_type {
        "integer" => "a whole number",
        "number" => "a number",
        "string" => "a string",
        "boolean" => "true or false",
        "array" => "a list",
        "object" => "a table",
        other => other,
    }
    .to_owned()
}
