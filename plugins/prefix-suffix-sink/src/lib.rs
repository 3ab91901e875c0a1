//! Prints each body between a prefix and a suffix: the tutorials' `MySink`.

use wasmflow_sdk::console;
use wasmflow_sdk::prelude::*;

/// What stands around each body.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Before the body.
    #[serde(default = "hello")]
    prefix: String,
    /// Behind the body, before the newline.
    #[serde(default)]
    suffix: String,
}

fn hello() -> String {
    "hello:".into()
}

/// The sink.
pub struct PrefixSuffix {
    prefix: String,
    suffix: String,
}

impl Sink for PrefixSuffix {
    type Config = Config;
    const ABOUT: &'static str = "Prints each body between a prefix and a suffix, a line each, to standard output.";

    fn open(config: Config) -> Result<Self, Failure> {
        Ok(PrefixSuffix { prefix: config.prefix, suffix: config.suffix })
    }

    fn deliver(&mut self, batch: &mut Batch, _delivery: &Delivery) -> Result<Outcome, Failure> {
        console::write(&self.lines(&batch.bodies()))?;
        Ok(Outcome::Delivered)
    }
}

wasmflow_sdk::export_sink!(PrefixSuffix);

impl PrefixSuffix {
    fn lines(&self, bodies: &Packed) -> Vec<u8> {
        let around = self.prefix.len() + self.suffix.len() + 1;
        let mut lines = Vec::with_capacity(bodies.data.len() + around * bodies.count());
        for body in bodies {
            append_all(&mut lines, [self.prefix.as_bytes(), body, self.suffix.as_bytes(), b"\n"]);
        }
        lines
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(config: &str, bodies: &[&str]) -> String {
        let config: Config = wasmflow_sdk::serde_json::from_str(config).unwrap();
        let lines = PrefixSuffix::open(config).unwrap().lines(&bodies.iter().collect());
        String::from_utf8(lines).unwrap()
    }

    #[test]
    fn each_event_is_a_line_between_prefix_and_suffix() {
        let config = r#"{ "prefix": "mysinkprefix:", "suffix": ":mysuffix" }"#;
        assert_eq!(lines(config, &["a", ""]), "mysinkprefix:a:mysuffix\nmysinkprefix::mysuffix\n");
    }

    #[test]
    fn without_a_config_it_says_hello_and_no_null() {
        assert_eq!(lines("{}", &["hello"]), "hello:hello\n");
    }
}
