//! A source of numbers that misbehaves as its config tells it.

use std::time::Duration;

use hostile_acts::{Call, Config, Hostile, Mode, lying_bodies};
use wasmflow_sdk::kafka::{Consumer, Start, Subscription};
use wasmflow_sdk::prelude::{Batch, Failure, Need, Part, Position, Problem, Progress, Source};

/// The source.
pub struct Plugin {
    hostile: Hostile,
    next: u64,
}

impl Source for Plugin {
    type Config = Config;
    const ABOUT: &'static str = "Misbehaves as it is told, so that the host is seen to bear it.";
    const REPLAYS: bool = true;

    fn check(config: &Config) -> Result<Vec<Need>, Vec<Problem>> {
        Hostile::check(config);
        Ok(Vec::new())
    }

    fn open(config: Config, position: &Position) -> Result<Self, Failure> {
        let next = position.number("next")?.unwrap_or(0);
        Ok(Plugin { hostile: Hostile::open(config)?, next })
    }

    fn poll(&mut self, max_events: u32, _max_bytes: u32, wait: Duration) -> Result<Progress, Failure> {
        self.hostile.act(Call::Work)?;
        if self.next >= self.hostile.config.total {
            if !self.hostile.config.endless {
                return Ok(Progress::Finished);
            }
            std::thread::sleep(wait);
            return Ok(Progress::Idle);
        }
        if max_events == 0 && !self.hostile.lies(Mode::MoreThanAsked) {
            return Ok(Progress::Idle);
        }
        let batch = self.batch(max_events)?;
        let position = self.position();
        Ok(Progress::events(batch, position))
    }

    fn acked(&mut self, _batches: u64) -> Result<(), Failure> {
        self.hostile.act(Call::Acked)
    }

    fn close(&mut self) {
        let _ = self.hostile.act(Call::Close);
    }
}

wasmflow_sdk::export_source!(Plugin);

impl Plugin {
    fn batch(&mut self, max_events: u32) -> Result<Batch, Failure> {
        match self.hostile.config.mode {
            mode @ (Mode::EndsDecrease | Mode::EndsShort | Mode::EndsLong) if self.hostile.lies(mode) => {
                return Ok(Batch::new(&lying_bodies(mode, 2)));
            }
            Mode::MoreThanAsked => return Ok(Batch::from_bodies(vec!["more"; max_events as usize * 100 + 1])),
            Mode::OversizeEvent => return Ok(Batch::from_bodies([vec![b'x'; 20 << 20]])),
            Mode::Kafka => subscribe()?,
            _ => {}
        }
        self.next += 1;
        Ok(Batch::from_bodies([(self.next - 1).to_string()]))
    }

    fn position(&self) -> Vec<Part> {
        if self.hostile.lies(Mode::PositionFlood) {
            return (0..1000).map(|part| Part::new(format!("{}-{part}", self.next), vec![0; 16 << 10])).collect();
        }
        vec![Part::new("next", self.next.to_string())]
    }
}

fn subscribe() -> Result<(), Failure> {
    let subscription = Subscription {
        connection: "main".into(),
        group: "breach".into(),
        topics: vec!["breach".into()],
        partitions: None,
        start: Start::Earliest,
    };
    Consumer::subscribe(&subscription)?;
    Err(Failure::fatal("breach: subscribed to a connection that was not granted"))
}
