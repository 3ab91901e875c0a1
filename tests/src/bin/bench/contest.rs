//! Workloads and their references, run in turn: a slow minute of the machine meets all of them.

use std::time::{Duration, Instant};

use anyhow::{bail, ensure};
use wasmflow_tests::run::Cost;

use crate::report::{Better, Line, Reference, Report, shown};
use crate::spread::Spread;

/// What one run came to.
#[derive(Debug, Clone, Copy)]
pub struct Sample {
    pub value: f64,
    /// Processor seconds, user and system, for a million events.
    pub cpu: Option<f64>,
    /// The most memory that was resident, in MB.
    pub resident: Option<f64>,
}

impl Sample {
    pub fn of(value: f64) -> Self {
        Self { value, cpu: None, resident: None }
    }

    /// Of a program that took so many events through: events a second.
    pub fn rate(events: f64, cost: &Cost) -> Self {
        Self {
            value: events / cost.wall.as_secs_f64(),
            cpu: Some(cost.cpu.as_secs_f64() * 1e6 / events),
            resident: Some(cost.peak_resident_bytes as f64 / 1e6),
        }
    }

    /// # Errors
    /// When nothing was measured, or no time: what was taken off took as long as all, or the first look came when all was done.
    fn checked(self) -> anyhow::Result<Self> {
        ensure!(self.value.is_finite(), "what was taken off for the start took as long as all");
        ensure!(self.cpu.is_none_or(f64::is_finite), "it was over before it was looked at");
        Ok(self)
    }
}

type Run<'c> = Box<dyn FnMut(usize) -> anyhow::Result<Sample> + 'c>;

/// Who takes part: wasmflow in a workload, or a reference.
struct Entrant<'c> {
    name: String,
    run: Run<'c>,
    /// One a round, as long as it did not fail.
    samples: Vec<Sample>,
    failure: Option<String>,
    /// The line it is the figure of, and the reference of that.
    line: Option<Planned>,
}

struct Planned {
    unit: &'static str,
    better: Better,
    reference: Option<Id>,
}

/// An entrant that lines can be held against.
#[derive(Debug, Clone, Copy)]
pub struct Id(usize);

/// Workloads and references that take turns.
pub struct Contest<'c> {
    rounds: usize,
    order: Order,
    entrants: Vec<Entrant<'c>>,
}

/// Who comes first in a round.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Order {
    /// Always as entered: some tell what the one before them found.
    Entered,
    /// Each round the other way round: what a run leaves for the disk or the broker to do meets not always the same one.
    Turning,
}

impl<'c> Contest<'c> {
    pub fn new(rounds: usize) -> Self {
        Self { rounds, order: Order::Entered, entrants: Vec::new() }
    }

    /// One whose entrants know nothing of each other.
    pub fn turning(rounds: usize) -> Self {
        Self { order: Order::Turning, ..Self::new(rounds) }
    }

    /// Something to hold workloads against. `run` gets the number of the round, from 0.
    pub fn reference(&mut self, name: impl Into<String>, run: impl FnMut(usize) -> anyhow::Result<Sample> + 'c) -> Id {
        self.enter(name.into(), Box::new(run), None)
    }

    /// A workload whose figure is better the higher it is.
    pub fn line(
        &mut self,
        what: impl Into<String>,
        unit: &'static str,
        reference: Option<Id>,
        run: impl FnMut(usize) -> anyhow::Result<Sample> + 'c,
    ) -> Id {
        self.enter(what.into(), Box::new(run), Some(Planned { unit, better: Better::Higher, reference }))
    }

    /// A workload whose figure is better the lower it is.
    pub fn cost(
        &mut self,
        what: impl Into<String>,
        unit: &'static str,
        reference: Option<Id>,
        run: impl FnMut(usize) -> anyhow::Result<Sample> + 'c,
    ) -> Id {
        self.enter(what.into(), Box::new(run), Some(Planned { unit, better: Better::Lower, reference }))
    }

    /// Something to hold a workload against that comes behind it in each round.
    pub fn hold(&mut self, line: Id, name: impl Into<String>, run: impl FnMut(usize) -> anyhow::Result<Sample> + 'c) {
        let reference = self.reference(name, run);
        if let Some(planned) = &mut self.entrants[line.0].line {
            planned.reference = Some(reference);
        }
    }

    fn enter(&mut self, name: String, run: Run<'c>, line: Option<Planned>) -> Id {
        self.entrants.push(Entrant { name, run, samples: Vec::new(), failure: None, line });
        Id(self.entrants.len() - 1)
    }

    /// Runs all rounds and tells each run; lines are in the report from the first round on. Who fails is out, the others go on.
    ///
    /// # Errors
    /// When one failed.
    pub fn run(mut self, report: &mut Report) -> anyhow::Result<()> {
        let (count, rounds) = (self.entrants.len(), self.rounds);
        for round in 0..rounds {
            for (number, place) in self.places(round).enumerate() {
                let entrant = &mut self.entrants[place];
                if entrant.failure.is_some() {
                    continue;
                }
                let began = Instant::now();
                let told = match (entrant.run)(round).and_then(Sample::checked) {
                    Ok(sample) => {
                        entrant.samples.push(sample);
                        shown(sample.value)
                    }
                    Err(error) => {
                        entrant.failure = Some(format!("{error:#}"));
                        format!("failed: {error:#}")
                    }
                };
                let (at, of) = (round * count + number + 1, rounds * count);
                let seconds = began.elapsed().as_secs_f64();
                eprintln!("  [{} {at}/{of}] {}: {told} ({seconds:.1} s)", report.part(), entrant.name);
            }
            self.lines(report.part()).into_iter().for_each(|line| report.put(line));
        }
        let failed: Vec<_> = self.entrants.iter().filter(|entrant| entrant.failure.is_some()).collect();
        if let [first, ..] = failed.as_slice() {
            bail!("{} failed, the first: {}", failed.len(), first.failure.as_deref().unwrap_or_default());
        }
        Ok(())
    }

    fn places(&self, round: usize) -> impl Iterator<Item = usize> + use<> {
        let (count, is_turned) = (self.entrants.len(), self.order == Order::Turning && round % 2 == 1);
        (0..count).map(move |number| if is_turned { count - 1 - number } else { number })
    }

    fn lines(&self, part: &str) -> Vec<Line> {
        let line = |entrant: &Entrant<'_>| {
            let planned = entrant.line.as_ref()?;
            Some(Line {
                part: part.to_owned(),
                what: entrant.name.clone(),
                unit: planned.unit.to_owned(),
                better: planned.better,
                ours: spread(&entrant.samples, |sample| Some(sample.value))?,
                reference: planned.reference.and_then(|id| compared(entrant, &self.entrants[id.0])),
                cpu: spread(&entrant.samples, |sample| sample.cpu),
                resident: spread(&entrant.samples, |sample| sample.resident),
            })
        };
        self.entrants.iter().filter_map(line).collect()
    }
}

fn compared(ours: &Entrant<'_>, reference: &Entrant<'_>) -> Option<Reference> {
    let ratios: Vec<f64> =
        ours.samples.iter().zip(&reference.samples).map(|(ours, theirs)| ours.value / theirs.value).collect();
    Some(Reference {
        what: reference.name.clone(),
        value: spread(&reference.samples, |sample| Some(sample.value))?,
        ratio: Spread::of(&ratios)?,
        cpu: spread(&reference.samples, |sample| sample.cpu),
    })
}

fn spread(samples: &[Sample], of: impl Fn(&Sample) -> Option<f64>) -> Option<Spread> {
    Spread::of(&samples.iter().filter_map(of).collect::<Vec<_>>())
}

/// How many events take about a second, which is long beside the grain of the clocks: `run` is timed with as many as it is given.
///
/// # Errors
/// Those of `run`.
pub fn enough(mut run: impl FnMut(u64) -> anyhow::Result<Duration>) -> anyhow::Result<u64> {
    const TRIAL: u64 = 1_000_000;
    let start = run(1)?;
    let took = run(TRIAL)?.saturating_sub(start).as_secs_f64().max(0.005);
    Ok(rounded(TRIAL as f64 / took).min(200_000_000))
}

/// With one digit, so that it reads well.
fn rounded(events: f64) -> u64 {
    let unit = 10_f64.powf(events.log10().floor());
    ((events / unit).ceil() * unit) as u64
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;

    use super::*;

    #[test]
    fn a_run_of_which_nothing_was_seen_is_no_figure() {
        let cost = |milliseconds| Cost {
            wall: Duration::from_millis(milliseconds),
            cpu: Duration::from_millis(milliseconds),
            peak_resident_bytes: 1,
        };
        assert!(Sample::rate(1.0, &cost(1)).checked().is_ok());
        assert!(Sample::rate(0.0, &cost(1)).checked().is_err());
        assert!(Sample::rate(0.0, &cost(0)).checked().is_err());
        assert!(Sample::rate(1.0, &cost(0)).checked().is_err());
        // Beyond the reference, or idle.
        assert!(Sample::of(-4.0).checked().is_ok() && Sample::of(0.0).checked().is_ok());
    }

    #[test]
    fn entrants_take_turns_and_each_round_is_compared_with_itself() {
        let turns = RefCell::new(String::new());
        let mut contest = Contest::turning(3);
        let reference = contest.reference("theirs", |round| {
            turns.borrow_mut().push('r');
            Ok(Sample::of(10.0 * (round + 1) as f64))
        });
        contest.line("ours", "events/s", Some(reference), |round| {
            turns.borrow_mut().push('w');
            Ok(Sample::of(5.0 * (round + 1) as f64))
        });
        for round in 0..3 {
            for place in contest.places(round) {
                let entrant = &mut contest.entrants[place];
                let sample = (entrant.run)(round).unwrap();
                entrant.samples.push(sample);
            }
        }
        let lines = contest.lines("part");
        assert_eq!(lines.len(), 1, "a reference is no line of its own");
        let ratio = lines[0].reference.as_ref().unwrap().ratio;
        assert_eq!((ratio.min, ratio.median, ratio.max), (0.5, 0.5, 0.5), "although the machine became faster");
        assert_eq!((lines[0].ours.min, lines[0].ours.max), (5.0, 15.0));
        drop(contest);
        assert_eq!(turns.into_inner(), "rwwrrw");
    }

    #[test]
    fn enough_events_are_made_for_a_second() {
        let at_rate = |rate: f64| enough(|events| Ok(Duration::from_secs_f64(0.02 + events as f64 / rate))).unwrap();
        assert_eq!(at_rate(44e6), 50_000_000);
        assert_eq!(at_rate(310e3), 400_000);
        assert_eq!(at_rate(1e12), 200_000_000);
    }

    #[test]
    fn a_line_whose_reference_failed_has_a_figure_and_no_ratio() {
        let mut contest = Contest::new(1);
        let reference = contest.reference("theirs", |_| bail!("not today"));
        contest.line("ours", "events/s", Some(reference), |_| Ok(Sample::of(1.0)));
        contest.entrants[1].samples.push(Sample::of(1.0));
        let lines = contest.lines("part");
        assert_eq!((lines[0].ours.median, &lines[0].reference), (1.0, &None));
    }
}
