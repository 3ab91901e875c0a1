//! What the project has promised itself, and whether a run has met it.
//!
//! Targets are ratios to the reference of the same run where there is one. Processor seconds a million events are those of the
//! program alone: the steadier figure where a broker shares the machine. Other programs from Kafka to Kafka are held against by way of the
//! raw loop, which was measured beside them (`RAW_CPU`): a machine whose memory is slower today makes all of them slower.

use crate::report::{Line, Results, shown};

/// One promise about one line of the table.
pub struct Target {
    pub what: &'static str,
    part: &'static str,
    line: &'static str,
    figure: Figure,
    bound: Bound,
}

/// Which figure of the line.
#[derive(Debug, Clone, Copy)]
enum Figure {
    Ratio,
    Value,
    /// Processor seconds a million.
    Cpu,
    /// Processor seconds by those of the reference.
    CpuRatio,
    Resident,
}

#[derive(Debug, Clone, Copy)]
enum Bound {
    AtLeast(f64),
    AtMost(f64),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    Met,
    Missed,
    NotMeasured,
}

/// A target, with what was measured.
pub struct Judged {
    pub what: &'static str,
    pub bound: String,
    pub measured: String,
    pub verdict: Verdict,
}

/// Every target, in the order of the table.
pub fn judged(results: &Results) -> Vec<Judged> {
    TARGETS.iter().map(|target| judge(target, results)).collect()
}

fn judge(target: &Target, results: &Results) -> Judged {
    let line = results.lines.iter().find(|line| line.part == target.part && line.what == target.line);
    let value = line.and_then(|line| target.figure.of(line));
    let unit = target.figure.unit(line);
    let (word, bound) = match target.bound {
        Bound::AtLeast(bound) => (">=", bound),
        Bound::AtMost(bound) => ("<=", bound),
    };
    let verdict = match (value, target.bound) {
        (None, _) => Verdict::NotMeasured,
        (Some(value), Bound::AtLeast(bound)) if value >= bound => Verdict::Met,
        (Some(value), Bound::AtMost(bound)) if value <= bound => Verdict::Met,
        (Some(_), _) => Verdict::Missed,
    };
    let measured = value.map(|value| format!("{} {unit}", shown(value)).trim_end().to_owned()).unwrap_or_default();
    Judged { what: target.what, bound: format!("{word} {} {unit}", shown(bound)).trim_end().into(), measured, verdict }
}

impl Figure {
    fn of(self, line: &Line) -> Option<f64> {
        match self {
            Self::Ratio => line.reference.as_ref().map(|reference| reference.ratio.median),
            Self::Value => Some(line.ours.median),
            Self::Cpu => line.cpu.map(|cpu| cpu.median),
            Self::CpuRatio => {
                let reference = line.reference.as_ref()?.cpu?.median;
                line.cpu.map(|cpu| cpu.median / reference)
            }
            Self::Resident => line.resident.map(|resident| resident.median),
        }
    }

    fn unit(self, line: Option<&Line>) -> &str {
        match self {
            Self::Ratio => "of the reference",
            Self::Value => line.map_or("", |line| &line.unit),
            Self::Cpu => "s a million",
            Self::CpuRatio => "x the reference's processor",
            Self::Resident => "MB",
        }
    }
}

const fn target(what: &'static str, [part, line]: [&'static str; 2], figure: Figure, bound: Bound) -> Target {
    Target { what, part, line, figure, bound }
}

use Bound::{AtLeast, AtMost};
use Figure::{Cpu, CpuRatio, Ratio, Resident, Value};

const COPY: [&str; 2] = ["kafka", "at least once, 100 B, 4 partitions"];
const ONCE: [&str; 2] = ["kafka", "exactly once, 100 B, 4 partitions"];
const PLAIN_COPY: [&str; 2] = ["kafka", "at least once, 100 B, 4 partitions, no interceptor"];
const LOGGED_COPY: [&str; 2] = ["kafka", "at least once, 100 B, 4 partitions, no interceptor, file channel"];
const LARGE_COPY: [&str; 2] = ["kafka", "at least once, 1 KiB, 4 partitions"];
const TAIL: [&str; 2] = ["tail", "1 GB of 100 B lines to null"];
const TAIL_WASM: [&str; 2] = ["tail", "1 GB of 100 B lines, prefix-suffix, to null"];
const TAIL_KAFKA: [&str; 2] = ["tail", "100 B lines to Kafka"];
const LOG: [&str; 2] = ["file", "sync always, 1000 x 100 B, 4 sources"];
const PLAIN: [&str; 2] = ["memory", "100 B, no interceptor"];
const HEADER: [&str; 2] = ["memory", "100 B, static"];
const AFFIX: [&str; 2] = ["memory", "100 B, prefix-suffix"];
const THREE: [&str; 2] = ["memory", "100 B, static + timestamp + search-replace"];

/// Processor seconds a million of a raw librdkafka loop in the section of `peers.md` that has the others from Kafka to Kafka: with an
/// idempotent producer, with a transaction every 100 ms, with 1 KiB.
const RAW_CPU: f64 = 0.63;
const RAW_TRANSACTIONAL_CPU: f64 = 0.69;
const RAW_LARGE_CPU: f64 = 1.75;

/// The table of the issue, then the rows of `peers.md` by the processor seconds that others used for the same work on a machine
/// like this one.
const TARGETS: &[Target] = &[
    target("Kafka -> Wasm that rewrites bodies -> Kafka, at least once", COPY, Ratio, AtLeast(0.9)),
    target("the same, exactly once", ONCE, Ratio, AtLeast(0.9)),
    target("in memory, 100 B, headers only: 10 million events/s a core", HEADER, Cpu, AtMost(0.1)),
    target(
        "in memory, 100 B, bodies rewritten, beside a native function in the plugin's place",
        AFFIX,
        Ratio,
        AtLeast(0.5),
    ),
    target("tail, 100 B lines, to null, beside a native program", TAIL, Ratio, AtLeast(0.5)),
    target("the same: 8 million lines a second a core", TAIL, Cpu, AtMost(0.125)),
    target("file channel, sync always, beside plain writes with the same syncs", LOG, Ratio, AtLeast(0.8)),
    target("the same: 20 x Flume's file channel (74,000 events/s)", LOG, Value, AtLeast(1_480_000.0)),
    target(
        "MySQL rows to null, beside the native async client",
        ["mysql", "1,000,000 rows to null"],
        Ratio,
        AtLeast(0.7),
    ),
    target("tail -> Kafka, acks = all, beside a producer loop fed from memory", TAIL_KAFKA, Ratio, AtLeast(0.9)),
    target("the same, ahead of Fluent Bit (1.0)", TAIL_KAFKA, Cpu, AtMost(1.0)),
    target(
        "latency at half the greatest rate, netcat to console, p99",
        ["latency", "netcat to console, at 50 %: p99"],
        Value,
        AtMost(5.0),
    ),
    target(
        "the same, Kafka to Kafka, p99 beyond the raw loop's",
        ["latency", "Kafka to Kafka, at 50 %: p99 beyond the raw loop's"],
        Value,
        AtMost(5.0),
    ),
    target("warm start to the first event", ["start", "start to first event, cache filled"], Value, AtMost(100.0)),
    target("idle agent of one pipeline", ["start", "idle agent of one pipeline"], Resident, AtMost(60.0)),
    target("1000 idle stages: memory a stage", ["stages", "1000 stages: memory a stage"], Value, AtMost(2.0)),
    target("1000 idle stages: processor", ["stages", "1000 stages: idle processor"], Value, AtMost(1.0)),
    target(
        "swap of an interceptor under load, p99",
        ["swap", "swap of an interceptor, gap between batches, p99"],
        Value,
        AtMost(5.0),
    ),
    target(
        "the same, Kafka to Kafka exactly once, what the swap adds",
        ["swap", "swap of an interceptor, Kafka to Kafka exactly-once, the switch alone, p99"],
        Value,
        AtMost(5.0),
    ),
    target("4 x ahead of MirrorMaker 2 (3.5), copying only", PLAIN_COPY, CpuRatio, AtMost(3.5 / RAW_CPU / 4.0)),
    target("4 x ahead of MirrorMaker 2 with InsertHeader (4.7)", COPY, CpuRatio, AtMost(4.7 / RAW_CPU / 4.0)),
    target("4 x ahead of Redpanda Connect, tuned, with a mapping (5.2)", COPY, CpuRatio, AtMost(5.2 / RAW_CPU / 4.0)),
    target(
        "4 x ahead of Flume from Kafka to Kafka (3.9), copying only",
        PLAIN_COPY,
        CpuRatio,
        AtMost(3.9 / RAW_CPU / 4.0),
    ),
    target(
        "4 x ahead of Flume from Kafka to Kafka by a file channel (51)",
        LOGGED_COPY,
        CpuRatio,
        AtMost(51.0 / RAW_CPU / 4.0),
    ),
    target("4 x ahead of Flume with 1 KiB bodies (12.7)", LARGE_COPY, CpuRatio, AtMost(12.7 / RAW_LARGE_CPU / 4.0)),
    target("ahead of Kafka Connect's exactly-once source (5.3)", ONCE, CpuRatio, AtMost(5.3 / RAW_TRANSACTIONAL_CPU)),
    target("a Wasm step 5 x ahead of Fluent Bit's: tail, affix, null (1.4)", TAIL_WASM, Cpu, AtMost(1.4 / 5.0)),
    target("a Wasm step 10 x ahead of tangent's: TCP, Rust, nothing (4.5)", TAIL_WASM, Cpu, AtMost(4.5 / 10.0)),
    target("ahead of Fluent Bit, tail -> null (0.28)", TAIL, Cpu, AtMost(0.28)),
    target("ahead of Flume, stress -> memory -> null (0.36)", PLAIN, Cpu, AtMost(0.36)),
    target("ahead of Flume with static, timestamp, search_replace (1.00)", THREE, Cpu, AtMost(1.0)),
    target("ahead of Flume's file channel (16.3)", LOG, Cpu, AtMost(16.3)),
];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::machine::Machine;
    use crate::report::{Better, Reference};
    use crate::spread::Spread;

    fn results(ratio: f64, cpu: f64) -> Results {
        let spread = |value: f64| Spread::of(&[value]).unwrap();
        let line = Line {
            part: COPY[0].into(),
            what: COPY[1].into(),
            unit: "records/s".into(),
            better: Better::Higher,
            ours: spread(1e6),
            reference: Some(Reference {
                what: "raw".into(),
                value: spread(1e6),
                ratio: spread(ratio),
                cpu: Some(spread(RAW_CPU)),
            }),
            cpu: Some(spread(cpu)),
            resident: None,
        };
        Results {
            format: 2,
            unix_seconds: 0,
            commit: String::new(),
            machine: Machine::default(),
            load_before: 0.0,
            finished: true,
            lines: vec![line],
        }
    }

    #[test]
    fn a_target_is_met_missed_or_not_measured() {
        let met = judged(&results(0.91, 1.0));
        assert_eq!((met[0].verdict, met[0].measured.as_str()), (Verdict::Met, "0.910 of the reference"));
        assert_eq!(met[0].bound, ">= 0.900 of the reference");
        assert_eq!(met[1].verdict, Verdict::NotMeasured);
        assert_eq!(judged(&results(0.89, 1.0))[0].verdict, Verdict::Missed);
        let by_cpu =
            |results: &Results| judged(results).iter().filter(|judged| judged.verdict == Verdict::Missed).count();
        assert_eq!(by_cpu(&results(1.0, 1.0)), 0);
        assert_eq!(by_cpu(&results(1.0, 1.25)), 1, "4 x ahead of 4.7, not of 5.2");
    }
}
