//! Keeps the events in whose body a pattern is found, or drops them.

use wasmflow_sdk::pattern::Pattern;
use wasmflow_sdk::prelude::*;

/// What is looked for.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Regular expression (the syntax of the Rust crate `regex`), found anywhere in the body. `(?-u)` at its front lets `.`
    /// match bytes that are not UTF-8.
    pattern: Pattern,
    /// Drops what is found, and keeps the rest.
    #[serde(default)]
    exclude: bool,
}

/// The interceptor.
pub struct RegexFilter {
    config: Config,
}

impl Interceptor for RegexFilter {
    type Config = Config;
    const ABOUT: &'static str = "Keeps or drops the events in whose body a pattern is found.";

    fn open(config: Config) -> Result<Self, Failure> {
        Ok(RegexFilter { config })
    }

    fn intercept(&mut self, batch: &mut Batch) -> Result<(), Failure> {
        batch.retain_bodies(|body| self.config.pattern.is_match(body) != self.config.exclude)?;
        Ok(())
    }
}

wasmflow_sdk::export_interceptor!(RegexFilter);

#[cfg(test)]
mod tests {
    use super::*;

    fn kept(pattern: &str, exclude: bool, bodies: &[&[u8]]) -> Vec<Vec<u8>> {
        let mut batch = Batch::from_bodies(bodies);
        let mut filter = RegexFilter::open(Config { pattern: pattern.parse().unwrap(), exclude }).unwrap();
        filter.intercept(&mut batch).unwrap();
        batch.bodies().iter().map(<[u8]>::to_vec).collect()
    }

    #[test]
    fn events_with_the_pattern_are_kept_in_order() {
        assert_eq!(kept("^ERR|x", false, &[b"ERR 1", b"ok", b"ax", b"ok ERR"]), [&b"ERR 1"[..], b"ax"]);
    }

    #[test]
    fn with_exclude_they_are_the_ones_that_go() {
        assert_eq!(kept("^ERR|x", true, &[b"ERR 1", b"ok", b"ax"]), [b"ok"]);
    }

    #[test]
    fn a_body_that_is_not_text_can_be_matched() {
        assert_eq!(kept(r"(?-u)\xfe", false, &[b"\xff", b"\xff\xfe"]), [b"\xff\xfe"]);
    }
}
