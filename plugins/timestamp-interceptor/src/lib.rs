//! Sets the time of arrival, in milliseconds since 1970.

use std::time::{SystemTime, UNIX_EPOCH};

use wasmflow_sdk::prelude::*;

/// Which header gets the time.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Name of the header.
    #[serde(default = "timestamp")]
    header: String,
    /// Leaves events alone that carry the header already.
    #[serde(default)]
    preserve_existing: bool,
}

fn timestamp() -> String {
    "timestamp".into()
}

/// The interceptor.
pub struct Timestamp {
    config: Config,
}

impl Interceptor for Timestamp {
    type Config = Config;
    const ABOUT: &'static str = "Sets the time of arrival as a header, in milliseconds since 1970.";

    fn check(_config: &Config) -> Result<Vec<Need>, Vec<Problem>> {
        Ok(vec![Need::new("wall_clock", "true")])
    }

    fn open(config: Config) -> Result<Self, Failure> {
        Ok(Timestamp { config })
    }

    fn intercept(&mut self, batch: &mut Batch) -> Result<(), Failure> {
        stamp(batch, &self.config, now_ms()?)
    }
}

wasmflow_sdk::export_interceptor!(Timestamp);

/// One time for the whole batch: its events have arrived together, and one value costs the same for any number of them.
fn stamp(batch: &mut Batch, config: &Config, now_ms: u64) -> Result<(), Failure> {
    let mut digits = itoa::Buffer::new();
    let value = digits.format(now_ms).as_bytes();
    match config.preserve_existing {
        true => batch.set_missing_header(&config.header, value)?,
        false => batch.set_header(&config.header, Column::constant(value))?,
    }
    Ok(())
}

fn now_ms() -> Result<u64, Failure> {
    let since_1970 = SystemTime::now().duration_since(UNIX_EPOCH);
    let since_1970 = since_1970.map_err(|_| Failure::fatal("the wall clock stands before 1970"))?;
    u64::try_from(since_1970.as_millis()).map_err(Failure::fatal)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stamped(preserve_existing: bool) -> Vec<Option<Vec<u8>>> {
        let mut batch = Batch::from_events(&[Event::new("a").with_header("timestamp", "7"), Event::new("b")]);
        stamp(&mut batch, &Config { header: timestamp(), preserve_existing }, 1_700_000_000_123).unwrap();
        let column = batch.header("timestamp").unwrap();
        column.iter(2).map(|value| value.map(<[u8]>::to_vec)).collect()
    }

    #[test]
    fn every_event_gets_the_time_in_decimal() {
        assert_eq!(stamped(false), [Some(b"1700000000123".to_vec()), Some(b"1700000000123".to_vec())]);
    }

    #[test]
    fn an_existing_time_is_kept_where_asked() {
        assert_eq!(stamped(true), [Some(b"7".to_vec()), Some(b"1700000000123".to_vec())]);
    }

    #[test]
    fn the_clock_says_a_time_of_this_century() {
        assert!(now_ms().unwrap() > 1_600_000_000_000);
    }
}
