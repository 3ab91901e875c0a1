//! Sets headers to fixed values.

use std::collections::BTreeMap;

use wasmflow_sdk::prelude::*;

/// Which headers get which values.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Name and value of each header.
    #[schemars(extend("minProperties" = 1))]
    headers: BTreeMap<String, String>,
    /// Leaves events alone that carry the header already.
    #[serde(default = "yes")]
    preserve_existing: bool,
}

fn yes() -> bool {
    true
}

/// The interceptor.
pub struct Static {
    config: Config,
}

impl Interceptor for Static {
    type Config = Config;
    const ABOUT: &'static str = "Sets headers to fixed values.";

    fn open(config: Config) -> Result<Self, Failure> {
        Ok(Static { config })
    }

    fn intercept(&mut self, batch: &mut Batch) -> Result<(), Failure> {
        for (name, value) in &self.config.headers {
            match self.config.preserve_existing {
                true => batch.set_missing_header(name, value.as_bytes())?,
                false => batch.set_header(name, Column::constant(value))?,
            }
        }
        Ok(())
    }
}

wasmflow_sdk::export_interceptor!(Static);

#[cfg(test)]
mod tests {
    use super::*;

    fn set(preserve_existing: bool) -> Vec<Event> {
        let headers = [("site", "a"), ("level", "info")].map(|(name, value)| (name.into(), value.into()));
        let mut batch = Batch::from_events(&[Event::new("1").with_header("level", "error"), Event::new("2")]);
        let mut interceptor = Static::open(Config { headers: headers.into(), preserve_existing }).unwrap();
        interceptor.intercept(&mut batch).unwrap();
        batch.events()
    }

    #[test]
    fn every_event_gets_every_header() {
        for event in set(false) {
            assert_eq!(event.header("site"), Some(&b"a"[..]));
            assert_eq!(event.header("level"), Some(&b"info"[..]));
        }
    }

    #[test]
    fn an_existing_header_is_kept_by_default() {
        let events = set(yes());
        assert_eq!(events[0].header("level"), Some(&b"error"[..]));
        assert_eq!(events[1].header("level"), Some(&b"info"[..]));
    }
}
