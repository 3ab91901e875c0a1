//! What a plugin says about itself before it is opened.

use schemars::JsonSchema;
use serde::de::DeserializeOwned;

use crate::config;
use crate::failure::{Failure, milliseconds};

pub use crate::bindings::descriptor::exports::wasmflow::plugin::descriptor::{Description, Need, Problem, Traits};

impl Need {
    /// A grant this configuration will ask for, as in `allow`: `listen`, `127.0.0.1:44444`.
    pub fn new(grant: impl Into<String>, value: impl Into<String>) -> Need {
        Need { grant: grant.into(), value: value.into() }
    }
}

impl Problem {
    /// What is wrong with the value at `path`, a JSON Pointer into the config.
    pub fn new(path: impl Into<String>, message: impl ToString) -> Problem {
        Problem { path: path.into(), message: message.to_string() }
    }
}

impl From<Problem> for Failure {
    /// A config that does not work will not work later either.
    fn from(problem: Problem) -> Failure {
        match problem.path.as_str() {
            "" => Failure::Fatal(format!("config: {}", problem.message)),
            path => Failure::Fatal(format!("config `{path}`: {}", problem.message)),
        }
    }
}

/// Makes the description that `describe` answers. `package` is the crate's name, as in `prefix-suffix-sink`; the plugin's is
/// that without its kind.
#[doc(hidden)]
pub fn description<C: JsonSchema>(
    package: &str,
    version: &str,
    about: &str,
    traits: Traits,
    tick: Option<std::time::Duration>,
) -> Description {
    let kinds = ["-source", "-interceptor", "-sink"];
    let name = kinds.iter().find_map(|kind| package.strip_suffix(kind)).unwrap_or(package);
    Description {
        name: name.into(),
        version: version.into(),
        about: about.into(),
        config_schema: schemars::schema_for!(C).as_value().to_string(),
        traits,
        tick_ms: tick.map(milliseconds),
    }
}

/// Answers `check`: the misfit of the config, or else what the plugin says.
#[doc(hidden)]
pub fn check<C: DeserializeOwned>(
    json: &str,
    plugin: impl FnOnce(&C) -> Result<Vec<Need>, Vec<Problem>>,
) -> Result<Vec<Need>, Vec<Problem>> {
    plugin(&config::parse(json).map_err(|problem| vec![problem])?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(serde::Deserialize, JsonSchema)]
    #[serde(deny_unknown_fields)]
    struct Config {
        /// How long to wait.
        #[serde(default = "second")]
        wait: config::Duration,
    }

    fn second() -> config::Duration {
        "1s".parse().unwrap()
    }

    #[test]
    fn the_schema_carries_docs_defaults_and_patterns() {
        let described = description::<Config>("my-tail-source", "1.2.3", "Tails.", Traits::REPLAYS, None);
        assert_eq!(described.name, "my-tail");
        let schema: serde_json::Value = serde_json::from_str(&described.config_schema).unwrap();
        let wait = &schema["properties"]["wait"];
        assert_eq!(wait["description"], "How long to wait.");
        assert_eq!(wait["default"], "1s");
        assert!(wait["pattern"].is_string());
        assert_eq!(schema["additionalProperties"], false);
    }

    #[test]
    fn a_config_that_does_not_parse_is_a_problem_of_check() {
        let problems = check(r#"{ "wait": "soon" }"#, |_: &Config| Ok(vec![])).unwrap_err();
        assert_eq!(problems[0].path, "/wait");
        let needs = check(r#"{ "wait": "2s" }"#, |config: &Config| Ok(vec![Need::new("net", config.wait.to_string())]));
        assert_eq!(needs.unwrap()[0].value, "2s");
    }
}
