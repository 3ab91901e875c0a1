//! `bench compare A.json B.json`: what has become faster or slower from one run to another.

use std::fmt::Write as _;

use crate::report::{Better, Line, Results, shown};
use crate::table::{Style, table};

/// What changed in a line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Change {
    Faster,
    Slower,
    /// The runs of both lie over each other: no claim can be made.
    WithinSpread,
}

/// Every line of both, in the order of the second, with the change of its figure and of its ratio.
pub fn compare(before: &Results, after: &Results, style: Style) -> String {
    let mut text = format!("from {} to {}\n", before.commit, after.commit);
    if before.machine != after.machine {
        let _ = writeln!(
            text,
            "other machines: only ratios can be compared\n  {}\n  {}",
            before.machine.text(),
            after.machine.text()
        );
    }
    let mut rows = vec![["workload", "before", "after", "change", "ratio before", "after", ""].map(str::to_owned)];
    for line in &after.lines {
        if let Some(old) = before.lines.iter().find(|old| old.part == line.part && old.what == line.what) {
            rows.push(row(old, line));
        }
    }
    text += &table(&rows, style);
    for (whose, lines, others) in
        [("only before", &before.lines, &after.lines), ("only after", &after.lines, &before.lines)]
    {
        let absent = |line: &&Line| !others.iter().any(|other| other.part == line.part && other.what == line.what);
        for line in lines.iter().filter(absent) {
            let _ = writeln!(text, "{whose}: {}: {}", line.part, line.what);
        }
    }
    text
}

fn row(before: &Line, after: &Line) -> [String; 7] {
    let ratio = |line: &Line| {
        line.reference.as_ref().map(|reference| format!("{:.2}", reference.ratio.median)).unwrap_or_default()
    };
    let change = match change(before, after) {
        Change::Faster => "better",
        Change::Slower => "WORSE",
        Change::WithinSpread => "within the spread",
    };
    [
        format!("{}: {}", after.part, after.what),
        format!("{} {}", shown(before.ours.median), before.unit),
        format!("{} {}", shown(after.ours.median), after.unit),
        format!("{:+.1} %", (after.ours.median / before.ours.median - 1.0) * 100.0),
        ratio(before),
        ratio(after),
        change.to_owned(),
    ]
}

fn change(before: &Line, after: &Line) -> Change {
    let is_single = before.ours.runs == 1 || after.ours.runs == 1;
    // One run has no spread; a tenth is what such figures differ by on a quiet machine.
    let is_small = (after.ours.median / before.ours.median - 1.0).abs() < 0.1;
    if before.ours.overlaps(&after.ours) || (is_single && is_small) {
        return Change::WithinSpread;
    }
    match (after.ours.median > before.ours.median) == (after.better == Better::Higher) {
        true => Change::Faster,
        false => Change::Slower,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::machine::Machine;
    use crate::spread::Spread;

    fn results(commit: &str, lines: &[(&str, Better, &[f64])]) -> Results {
        let line = |&(what, better, samples): &(&str, Better, &[f64])| Line {
            part: "memory".into(),
            what: what.into(),
            unit: "x".into(),
            better,
            ours: Spread::of(samples).unwrap(),
            reference: None,
            cpu: None,
            resident: None,
        };
        Results {
            format: 2,
            unix_seconds: 0,
            commit: commit.into(),
            machine: Machine::default(),
            load_before: 0.0,
            finished: true,
            lines: lines.iter().map(line).collect(),
        }
    }

    #[test]
    fn a_change_is_claimed_only_where_the_runs_lie_apart() {
        let before = results(
            "a",
            &[
                ("rate", Better::Higher, &[100.0, 110.0]),
                ("noisy", Better::Higher, &[100.0, 150.0]),
                ("delay", Better::Lower, &[5.0, 6.0]),
                ("once", Better::Lower, &[10.0]),
                ("gone", Better::Lower, &[1.0]),
            ],
        );
        let after = results(
            "b",
            &[
                ("rate", Better::Higher, &[120.0, 130.0]),
                ("noisy", Better::Higher, &[140.0, 160.0]),
                ("delay", Better::Lower, &[7.0, 8.0]),
                ("once", Better::Lower, &[10.5]),
                ("new", Better::Lower, &[1.0]),
            ],
        );
        let text = compare(&before, &after, Style::Text);
        let line = |name: &str| text.lines().find(|line| line.contains(name)).unwrap_or_else(|| panic!("{text}"));
        assert!(line("memory: rate").ends_with("better") && line("memory: rate").contains("+19.0 %"), "{text}");
        assert!(line("memory: noisy").ends_with("within the spread"), "{text}");
        assert!(line("memory: delay").ends_with("WORSE"), "{text}");
        assert!(line("memory: once").ends_with("within the spread"), "{text}");
        assert!(text.contains("only before: memory: gone") && text.contains("only after: memory: new"), "{text}");
        assert!(!text.contains("other machines"), "{text}");
    }

    #[test]
    fn other_machines_are_told() {
        let before = results("a", &[]);
        let mut after = results("b", &[]);
        after.machine.cores = 64;
        assert!(compare(&before, &after, Style::Text).contains("other machines: only ratios can be compared"));
    }
}
