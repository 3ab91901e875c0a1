//! `${NAME}` in strings: replaced after parsing, so a value with quotes or newlines stays inside its string.

use super::diagnostic::{Diagnostic, Span};
use super::read::Environment;

/// The text with every `${NAME}` replaced; `$${` stands for `${` itself.
///
/// A variable that is set and empty is replaced by nothing: that is a value. A replaced value is not looked at again.
pub fn substitute(text: &str, span: Span, environment: &Environment) -> Result<String, Diagnostic> {
    let mut result = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find("${") {
        let (before, from) = rest.split_at(at);
        if let Some(before) = before.strip_suffix('$') {
            result.push_str(before);
            result.push_str("${");
            rest = &from[2..];
            continue;
        }
        result.push_str(before);
        let name = variable_name(from, &span)?;
        result.push_str(&lookup(name, &span, environment)?);
        rest = &from[name.len() + 3..];
    }
    result.push_str(rest);
    Ok(result)
}

/// The name in a text that begins with `${`.
fn variable_name<'t>(from: &'t str, span: &Span) -> Result<&'t str, Diagnostic> {
    let name = from[2..].split('}').next().unwrap_or("");
    let is_closed = from[2..].len() > name.len();
    let is_name = !name.is_empty()
        && !name.starts_with(|c: char| c.is_ascii_digit())
        && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_');
    if is_closed && is_name {
        return Ok(name);
    }
    let message = "`${` does not begin a variable's name";
    Err(Diagnostic::error("bad-variable", span.clone(), message)
        .hint("write `${NAME}` for a variable, or `$${` for the text `${` itself"))
}

fn lookup(name: &str, span: &Span, environment: &Environment) -> Result<String, Diagnostic> {
    let Some(value) = environment(name) else {
        let message = format!("environment variable `{name}` is not set");
        let hint = format!("set it, or write `$${{{name}}}` for the text `${{{name}}}` itself");
        return Err(Diagnostic::error("undefined-variable", span.clone(), message).hint(hint));
    };
    value.into_string().map_err(|_| {
        Diagnostic::error("bad-variable", span.clone(), format!("environment variable `{name}` is not UTF-8"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn substituted(text: &str) -> Result<String, String> {
        let environment = |name: &str| match name {
            "HOST" => Some("db".into()),
            "EMPTY" => Some("".into()),
            "HOSTILE" => Some("a\"\nb = ${HOST}".into()),
            _ => None,
        };
        substitute(text, 0..1, &environment).map_err(|problem| problem.message)
    }

    #[test]
    fn a_variable_is_replaced_wherever_it_stands() {
        assert_eq!(substituted("mysql://${HOST}:${EMPTY}/x"), Ok("mysql://db:/x".into()));
    }

    #[test]
    fn a_value_with_quotes_newlines_and_variables_stays_as_it_is() {
        assert_eq!(substituted("${HOSTILE}"), Ok("a\"\nb = ${HOST}".into()));
    }

    #[test]
    fn a_doubled_dollar_stands_for_itself() {
        assert_eq!(substituted("$${HOST} $1 $"), Ok("${HOST} $1 $".into()));
    }

    #[test]
    fn an_undefined_variable_is_an_error() {
        assert_eq!(substituted("${NO}"), Err("environment variable `NO` is not set".into()));
    }

    #[test]
    fn what_is_not_a_name_is_an_error() {
        for text in ["${", "${}", "${a b}", "${1}", "${HOST"] {
            assert!(substituted(text).is_err(), "{text}");
        }
    }
}
