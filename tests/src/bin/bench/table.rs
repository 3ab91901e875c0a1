//! Results as a table for people, or as one to paste into a README.

use crate::report::{Better, Line, Results, shown};
use crate::spread::Spread;
use crate::targets::{self, Verdict};

/// How a table is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Style {
    /// Columns aligned with spaces.
    Text,
    Markdown,
}

/// Where and of what, all lines part by part, and what became of the targets.
pub fn document(results: &Results, style: Style) -> String {
    let mut text = format!("Commit {}, {}", results.commit, results.machine.text());
    text += &format!("; load before {:.1}", results.load_before);
    text += if results.finished { ".\n" } else { "; cut short.\n" };
    let mut parts: Vec<&str> = results.lines.iter().map(|line| line.part.as_str()).collect();
    parts.dedup();
    for part in parts {
        let lines = results.lines.iter().filter(|line| line.part == part);
        let heading = [part, "wasmflow", "reference", "ratio", "s of processor a million", "resident"];
        let rows: Vec<_> = std::iter::once(heading.map(str::to_owned)).chain(lines.map(row)).collect();
        text += &format!("\n{}", table(&rows, style));
    }
    text + &format!("\n{}", targets_table(results, style))
}

/// The targets of the issue, each met, missed or not measured.
pub fn targets_table(results: &Results, style: Style) -> String {
    let heading = ["target", "at least, or at most", "measured", ""];
    let rows = targets::judged(results).into_iter().map(|judged| {
        let verdict = match judged.verdict {
            Verdict::Met => "met",
            Verdict::Missed => "MISSED",
            Verdict::NotMeasured => "not measured",
        };
        [judged.what.to_owned(), judged.bound, judged.measured, verdict.to_owned()]
    });
    let rows: Vec<_> = std::iter::once(heading.map(str::to_owned)).chain(rows).collect();
    table(&rows, style)
}

fn row(line: &Line) -> [String; 6] {
    let cpus = [line.cpu, line.reference.as_ref().and_then(|reference| reference.cpu)];
    let cpu = match cpus {
        [Some(ours), Some(theirs)] => format!("{} to {}", shown(ours.median), shown(theirs.median)),
        [Some(ours), None] => shown(ours.median),
        [None, _] => String::new(),
    };
    let reference = line.reference.as_ref();
    [
        line.what.clone(),
        format!("{} {}", spread(&line.ours), line.unit),
        reference.map(|reference| format!("{}: {}", reference.what, spread(&reference.value))).unwrap_or_default(),
        reference.map(|reference| ratio(&reference.ratio, line.better)).unwrap_or_default(),
        cpu,
        line.resident.map(|resident| format!("{} MB", shown(resident.median))).unwrap_or_default(),
    ]
}

/// The median, and between which values all runs lie.
fn spread(spread: &Spread) -> String {
    match spread.runs {
        1 => shown(spread.median),
        _ => format!("{} ({}..{})", shown(spread.median), shown(spread.min), shown(spread.max)),
    }
}

fn ratio(ratio: &Spread, better: Better) -> String {
    let less = if better == Better::Lower { ", less is better" } else { "" };
    match ratio.runs {
        1 => format!("{:.2}{less}", ratio.median),
        _ => format!("{:.2} ({:.2}..{:.2}{less})", ratio.median, ratio.min, ratio.max),
    }
}

/// The first row is the heading.
pub fn table<const COLUMNS: usize>(rows: &[[String; COLUMNS]], style: Style) -> String {
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
    let widths: [usize; COLUMNS] = std::array::from_fn(width);
    let mut text = String::new();
    for (number, row) in rows.iter().enumerate() {
        match style {
            Style::Markdown => text += &format!("| {} |\n", row.join(" | ")),
            Style::Text => {
                let cells: Vec<_> = row.iter().zip(widths).map(|(cell, width)| format!("{cell:width$}")).collect();
                text += cells.join("  ").trim_end();
                text += "\n";
            }
        }
        if number == 0 && style == Style::Markdown {
            text += &format!("|{}\n", "---|".repeat(COLUMNS));
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::Reference;

    fn line() -> Line {
        let spread = |samples: &[f64]| Spread::of(samples).unwrap();
        Line {
            part: "kafka".into(),
            what: "copy".into(),
            unit: "records/s".into(),
            better: Better::Higher,
            ours: spread(&[900e3, 1000e3, 1100e3]),
            reference: Some(Reference {
                what: "raw loop".into(),
                value: spread(&[1000e3, 1000e3, 1200e3]),
                ratio: spread(&[0.9, 1.0, 0.92]),
                cpu: None,
            }),
            cpu: Some(spread(&[1.0])),
            resident: None,
        }
    }

    #[test]
    fn a_line_shows_the_median_the_spread_and_the_ratio() {
        let cells = row(&line());
        assert_eq!(cells[1], "1.00M (900.0k..1.10M) records/s");
        assert_eq!(cells[2], "raw loop: 1.00M (1.00M..1.20M)");
        assert_eq!(cells[3], "0.92 (0.90..1.00)");
        assert_eq!((cells[4].as_str(), cells[5].as_str()), ("1.00", ""));
    }

    #[test]
    fn a_table_is_aligned_or_markdown() {
        let rows = [["a", "b"], ["long", "c"]].map(|row| row.map(str::to_owned));
        assert_eq!(table(&rows, Style::Text), "a     b\nlong  c\n");
        assert_eq!(table(&rows, Style::Markdown), "| a | b |\n|---|---|\n| long | c |\n");
    }
}
