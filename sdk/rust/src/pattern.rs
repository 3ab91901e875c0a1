//! A regular expression in a config, compiled while it is read: a pattern that does not compile is a problem of its key.

use std::borrow::Cow;

use regex::bytes::Regex;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::Error as _;
use serde::{Deserialize, Deserializer};

/// A regular expression over bytes, in the syntax of the crate `regex`; it takes linear time, whatever the pattern.
#[derive(Clone, Debug)]
pub struct Pattern(pub Regex);

impl std::ops::Deref for Pattern {
    type Target = Regex;

    fn deref(&self) -> &Regex {
        &self.0
    }
}

impl std::str::FromStr for Pattern {
    type Err = regex::Error;

    fn from_str(pattern: &str) -> Result<Self, regex::Error> {
        Regex::new(pattern).map(Pattern)
    }
}

impl<'de> Deserialize<'de> for Pattern {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let pattern = Cow::<'de, str>::deserialize(deserializer)?;
        pattern.parse().map_err(D::Error::custom)
    }
}

impl JsonSchema for Pattern {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        "Pattern".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "string" })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pattern_that_does_not_compile_is_a_problem_with_its_place() {
        type Config = std::collections::BTreeMap<String, Pattern>;
        let problem = crate::config::parse::<Config>(r#"{ "pattern": "(" }"#).unwrap_err();
        assert_eq!(problem.path, "/pattern");
        assert!(problem.message.contains("unclosed group"), "{}", problem.message);
    }
}
