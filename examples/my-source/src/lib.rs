//! The tutorials' MySource: five events at a time, then a pause.

use std::time::Instant;

use wasmflow_sdk::prelude::*;

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// What each body begins with.
    #[serde(default = "hello")]
    field: String,
    /// The pause after five events.
    #[serde(default = "one_second")]
    delay: Duration,
}

fn hello() -> String {
    "Hello!".into()
}

fn one_second() -> Duration {
    Duration(std::time::Duration::from_secs(1))
}

/// The source. It has no position: what it brings is made up.
pub struct MySource {
    field: String,
    delay: std::time::Duration,
    not_before: Option<Instant>,
}

impl Source for MySource {
    type Config = Config;
    const ABOUT: &'static str = "Brings five made-up events, pauses, and again.";

    fn open(config: Config, _position: &Position) -> Result<Self, Failure> {
        Ok(MySource { field: config.field, delay: config.delay.0, not_before: None })
    }

    fn poll(&mut self, max_events: u32, _max_bytes: u32, wait: std::time::Duration) -> Result<Progress, Failure> {
        if max_events == 0 {
            return Ok(Progress::Idle);
        }
        let pause = self.not_before.map_or(wait * 0, |time| time.saturating_duration_since(Instant::now()));
        if pause > wait {
            // The host asks again, and can stop us in between.
            std::thread::sleep(wait);
            return Ok(Progress::Idle);
        }
        std::thread::sleep(pause);
        self.not_before = Some(Instant::now() + self.delay);
        let bodies = (0..5).map(|number| format!("{}{number}", self.field));
        Ok(Progress::events(Batch::from_bodies(bodies), Vec::new()))
    }
}

wasmflow_sdk::export_source!(MySource);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn five_events_come_and_then_a_pause() {
        let config = Config { field: "mySource-".into(), delay: Duration(std::time::Duration::from_secs(60)) };
        let mut source = MySource::open(config, &Position::default()).unwrap();
        let no_wait = std::time::Duration::ZERO;
        let Progress::Events(polled) = source.poll(100, 1000, no_wait).unwrap() else { panic!("no events") };
        let bodies: Vec<_> = polled.batch.bodies().iter().map(<[u8]>::to_vec).collect();
        assert_eq!(bodies, [b"mySource-0", b"mySource-1", b"mySource-2", b"mySource-3", b"mySource-4"]);
        assert!(matches!(source.poll(100, 1000, no_wait), Ok(Progress::Idle)));
    }
}
