//! Puts a prefix and a suffix around each body.

use wasmflow_sdk::prelude::*;

/// What stands around each body.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Before the body.
    #[serde(default)]
    prefix: String,
    /// Behind the body.
    #[serde(default)]
    suffix: String,
}

/// The interceptor.
pub struct PrefixSuffix {
    prefix: Vec<u8>,
    suffix: Vec<u8>,
}

impl Interceptor for PrefixSuffix {
    type Config = Config;
    const ABOUT: &'static str = "Puts a prefix and a suffix around each body.";

    fn open(config: Config) -> Result<Self, Failure> {
        Ok(PrefixSuffix { prefix: config.prefix.into_bytes(), suffix: config.suffix.into_bytes() })
    }

    fn intercept(&mut self, batch: &mut Batch) -> Result<(), Failure> {
        if !(self.prefix.is_empty() && self.suffix.is_empty()) {
            batch.surround_bodies(&self.prefix, &self.suffix)?;
        }
        Ok(())
    }
}

wasmflow_sdk::export_interceptor!(PrefixSuffix);

#[cfg(test)]
mod tests {
    use super::*;

    fn around(prefix: &str, suffix: &str, bodies: &[&str]) -> Vec<Vec<u8>> {
        let config = Config { prefix: prefix.into(), suffix: suffix.into() };
        let mut batch = Batch::from_bodies(bodies);
        PrefixSuffix::open(config).unwrap().intercept(&mut batch).unwrap();
        batch.bodies().iter().map(<[u8]>::to_vec).collect()
    }

    #[test]
    fn each_body_stands_between_prefix_and_suffix() {
        assert_eq!(around("<", ">>", &["a", "", "bc"]), [&b"<a>>"[..], b"<>>", b"<bc>>"]);
    }

    #[test]
    fn without_prefix_and_suffix_nothing_changes() {
        assert_eq!(around("", "", &["a"]), [b"a"]);
    }

    #[test]
    fn an_empty_batch_stays_empty() {
        assert!(around("<", ">", &[]).is_empty());
    }
}
