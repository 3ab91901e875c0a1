//! The tutorials' MySink: each event between a prefix and a suffix, to standard output.

use std::io::Write;

use wasmflow_sdk::prelude::*;

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Before the body.
    #[serde(default = "hello")]
    prefix: String,
    /// Behind the body.
    #[serde(default)]
    suffix: String,
}

fn hello() -> String {
    "hello:".into()
}

pub struct MySink {
    config: Config,
}

impl Sink for MySink {
    type Config = Config;
    const ABOUT: &'static str = "Prints each event between a prefix and a suffix.";

    fn open(config: Config) -> Result<Self, Failure> {
        Ok(MySink { config })
    }

    fn deliver(&mut self, batch: &mut Batch, _delivery: &Delivery) -> Result<Outcome, Failure> {
        let lines = self.lines(batch);
        let mut out = std::io::stdout().lock();
        let written = out.write_all(&lines).and_then(|()| out.flush());
        // The host keeps the transaction open until we answer; on an error the same events come again.
        written.map_err(|error| Failure::retry(format!("cannot write to standard output: {error}")))?;
        Ok(Outcome::Delivered)
    }
}

impl MySink {
    fn lines(&self, batch: &Batch) -> Vec<u8> {
        let mut lines = Vec::new();
        for body in batch.bodies().iter() {
            lines.extend_from_slice(self.config.prefix.as_bytes());
            lines.extend_from_slice(body);
            lines.extend_from_slice(self.config.suffix.as_bytes());
            lines.push(b'\n');
        }
        lines
    }
}

wasmflow_sdk::export_sink!(MySink);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_a_suffix_nothing_is_printed_for_it() {
        let sink = MySink { config: Config { prefix: hello(), suffix: String::new() } };
        assert_eq!(sink.lines(&Batch::from_bodies(["hello"])), b"hello:hello\n");
    }
}
