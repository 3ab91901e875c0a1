//! A candidate beside the serving generation: the same batches, what comes out compared and thrown away.
//!
//! Only an interceptor can be shadowed: it has no effect but its output. A shadow has no network, no Kafka, no writable folder and
//! starts no process, and it computes on a task of its own: the serving generation never waits for it. A batch that comes while
//! the shadow has [`QUEUE`] others to do is not compared.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::Instant;

use super::{ShadowReport, ShadowRequest, SwapError, SwapStep};
use crate::config::pipeline::Grants;
use crate::event::{Batch, Event, MADE_HERE};
use crate::plugin::InterceptorInstance;

/// Limit: batches that wait for the shadow, which share their data with the pipeline's own as long as that has them.
const QUEUE: usize = 4;
/// Limit: how long a shadow waits for its next batch before the swap is given up.
const BATCH_WAIT: Duration = Duration::from_secs(60);
/// Limit: names of headers told in the report.
const HEADERS_MAX: usize = 32;

/// Where a runner leaves copies of its batches.
#[derive(Debug, Clone)]
pub struct Tap(mpsc::Sender<Sample>);

/// One batch, and what the serving generation made of it.
#[derive(Debug)]
pub struct Sample {
    pub given: Batch,
    pub made: Batch,
    pub took: Duration,
}

impl Tap {
    /// Both ends; the second is for [`compare`].
    pub fn new() -> (Self, mpsc::Receiver<Sample>) {
        let (sender, samples) = mpsc::channel(QUEUE);
        (Self(sender), samples)
    }

    /// Leaves a sample if there is room for it. False: nobody wants any more.
    pub fn leave(&self, sample: Sample) -> bool {
        !matches!(self.0.try_send(sample), Err(mpsc::error::TrySendError::Closed(_)))
    }
}

/// What a shadow of a stage with these grants may do: read, but change nothing outside.
pub fn grants(granted: &Grants) -> Grants {
    let mut dirs = granted.dirs.clone();
    dirs.iter_mut().for_each(|dir| dir.write = false);
    Grants { dirs, net: Vec::new(), listen: Vec::new(), exec: Vec::new(), kafka: Vec::new(), ..granted.clone() }
}

/// Gives the candidate as many live batches as were asked for.
///
/// # Errors
/// When it fails on one, when too few come, or when they come out otherwise and must not.
pub async fn compare(
    mut samples: mpsc::Receiver<Sample>,
    mut candidate: InterceptorInstance,
    request: ShadowRequest,
) -> Result<ShadowReport, SwapError> {
    let mut report = ShadowReport::default();
    let (mut serving_time, mut candidate_time) = (Duration::ZERO, Duration::ZERO);
    let mut headers = BTreeMap::new();
    while report.batches < request.batches {
        let sample = match tokio::time::timeout(BATCH_WAIT, samples.recv()).await {
            Ok(Some(sample)) => sample,
            Ok(None) => return Err(failed("the stage came to its end")),
            Err(_) => {
                let reason =
                    format!("{} of {} batches came, then none for {BATCH_WAIT:?}", report.batches, request.batches);
                return Err(failed(reason).with_remedy("ask for fewer, or wait until events flow"));
            }
        };
        let began = Instant::now();
        let made = candidate.intercept(&sample.given, report.batches + 1).await;
        let made = made.map_err(|error| failed(format!("on live batch {}: {error}", report.batches + 1)))?;
        candidate_time += began.elapsed();
        serving_time += sample.took;
        report.batches += 1;
        report.events += sample.given.count() as u64;
        add_differences(&sample.made, &made.batch, &mut report, &mut headers);
    }
    let batches = u32::try_from(report.batches.max(1)).unwrap_or(u32::MAX);
    (report.serving_mean, report.candidate_mean) = (serving_time / batches, candidate_time / batches);
    let mut most: Vec<_> = headers.into_iter().collect();
    most.sort_by_key(|(_, events)| std::cmp::Reverse(*events));
    most.truncate(HEADERS_MAX);
    report.headers = most;
    if request.require_equal && !report.is_equal() {
        return Err(failed(format!("its output differs: {}", report.summary())));
    }
    Ok(report)
}

fn failed(reason: impl Into<String>) -> SwapError {
    SwapError::at(SwapStep::Shadow, reason)
}

impl ShadowReport {
    pub fn is_equal(&self) -> bool {
        self.changed + self.dropped + self.added == 0
    }

    /// One line for people.
    pub fn summary(&self) -> String {
        let headers: Vec<_> = self.headers.iter().map(|(name, events)| format!("`{name}` on {events}")).collect();
        let headers = if headers.is_empty() { String::new() } else { format!(" (headers {})", headers.join(", ")) };
        format!(
            "of {} events in {} batches {} changed{headers}, {} dropped, {} added; {:.1?} a batch, {:.1?} serving",
            self.events, self.batches, self.changed, self.dropped, self.added, self.candidate_mean, self.serving_mean
        )
    }
}

/// Compares event by event: those that stand for the same event of the batch, and those made new in their order.
fn add_differences(made: &Batch, other: &Batch, report: &mut ShadowReport, headers: &mut BTreeMap<String, u64>) {
    let (mut others, mut new_others) = by_origin(other);
    let (made_events, other_events) = (made.events(), other.events());
    for (row, event) in made_events.iter().enumerate() {
        let same = match made.origin(row) {
            MADE_HERE => new_others.pop(),
            origin => others.get_mut(&origin).and_then(Vec::pop),
        };
        match same {
            None => report.dropped += 1,
            Some(other_row) => {
                let differences = differences(event, &other_events[other_row]);
                report.changed += u64::from(differences.is_some());
                for name in differences.into_iter().flatten() {
                    *headers.entry(name).or_default() += 1;
                }
            }
        }
    }
    report.added += (new_others.len() + others.values().map(Vec::len).sum::<usize>()) as u64;
}

/// Rows by the event they stand for, and those that stand for none; of each the last first.
fn by_origin(batch: &Batch) -> (HashMap<u32, Vec<usize>>, Vec<usize>) {
    let (mut known, mut new) = (HashMap::<u32, Vec<usize>>::new(), Vec::new());
    for row in (0..batch.count()).rev() {
        match batch.origin(row) {
            MADE_HERE => new.push(row),
            origin => known.entry(origin).or_default().push(row),
        }
    }
    (known, new)
}

/// The headers in which two events differ; nothing when they are the same in all.
fn differences(one: &Event, other: &Event) -> Option<Vec<String>> {
    let view = |event: &Event| -> BTreeMap<Arc<str>, Vec<u8>> { event.headers.iter().cloned().collect() };
    let (left, right) = (view(one), view(other));
    let names: std::collections::BTreeSet<_> = left.keys().chain(right.keys()).collect();
    let differing: Vec<String> =
        names.into_iter().filter(|name| left.get(*name) != right.get(*name)).map(ToString::to_string).collect();
    (one.body != other.body || !differing.is_empty()).then_some(differing)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn batch(bodies: &[&str]) -> Batch {
        let event = |body: &&str| Event { headers: Vec::new(), body: body.as_bytes().to_vec() };
        Batch::from_events(&bodies.iter().map(event).collect::<Vec<_>>())
    }

    fn compared(made: &Batch, other: &Batch) -> (u64, u64, u64) {
        let (mut report, mut headers) = (ShadowReport::default(), BTreeMap::new());
        add_differences(made, other, &mut report, &mut headers);
        (report.changed, report.dropped, report.added)
    }

    #[test]
    fn events_are_compared_with_those_that_stand_for_the_same() {
        let given = batch(&["a", "b", "c"]);
        assert_eq!(compared(&given, &given), (0, 0, 0));
        assert_eq!(compared(&given, &given.select(&[0, 2]).unwrap()), (0, 1, 0));
        assert_eq!(compared(&given.select(&[2]).unwrap(), &given.select(&[0, 2]).unwrap()), (0, 0, 1));
        assert_eq!(compared(&given, &batch(&["a", "x", "c"])), (1, 0, 0));
        assert_eq!(compared(&given, &given.select(&[0, 0, 1, 2]).unwrap()), (0, 0, 1));
    }

    #[test]
    fn a_shadow_may_read_and_not_act() {
        let granted = Grants {
            net: vec![crate::config::HostPort { host: "db".into(), port: 1 }],
            kafka: vec!["main".into()],
            exec: vec!["rm".into()],
            env: vec!["HOME".into()],
            dirs: vec![crate::config::DirGrant { path: "/x".into(), as_written: "x".into(), write: true }],
            ..Grants::default()
        };
        let shadow = grants(&granted);
        assert!(shadow.net.is_empty() && shadow.kafka.is_empty() && shadow.exec.is_empty());
        assert!(!shadow.dirs[0].write);
        assert_eq!(shadow.env, ["HOME"]);
    }
}
