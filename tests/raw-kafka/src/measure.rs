//! Time and CPU of a run.

use std::time::Instant;

use anyhow::{Context, Result};

/// The kernel counts CPU time for us in hundredths of a second, whatever its own clock does.
const TICKS_PER_SECOND: f64 = 100.0;

/// From when the first record moved.
pub struct Measurement {
    start: Instant,
    cpu: f64,
}

impl Measurement {
    pub fn start() -> Result<Self> {
        Ok(Self { start: Instant::now(), cpu: cpu_seconds()? })
    }

    /// The line to print.
    pub fn finish(&self, records: u64) -> Result<String> {
        let seconds = self.start.elapsed().as_secs_f64();
        let cpu = cpu_seconds()? - self.cpu;
        let (rate, per_million) = (records as f64 / seconds, cpu * 1e6 / records as f64);
        Ok(format!(
            r#"{{"records":{records},"seconds":{seconds:.3},"records_per_second":{rate:.0},"cpu_seconds":{cpu:.2},"cpu_seconds_per_million":{per_million:.3}}}"#
        ))
    }
}

/// User and system time of this process.
fn cpu_seconds() -> Result<f64> {
    let stat = std::fs::read_to_string("/proc/self/stat").context("cannot read /proc/self/stat")?;
    // The second field, the program's name, may hold spaces; it ends at the last parenthesis. Times are fields 14 and 15.
    let fields = stat.rsplit(')').next().unwrap_or_default();
    let ticks = fields.split_whitespace().skip(11).take(2).map(str::parse::<f64>);
    let ticks: f64 = ticks.sum::<Result<f64, _>>().context("/proc/self/stat is not as expected")?;
    Ok(ticks / TICKS_PER_SECOND)
}
