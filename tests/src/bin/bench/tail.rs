//! A file of 100-byte lines from the page cache: to `null`, through a plugin that rewrites bodies, and to Kafka.

use std::fs::File;
use std::io::{BufWriter, Read as _, Write as _};
use std::path::Path;

use anyhow::Context as _;
use wasmflow_tests::agent::{PipelineFile, quiet_run};
use wasmflow_tests::broker::KafkaBroker;
use wasmflow_tests::folder::Folder;
use wasmflow_tests::pipelines;
use wasmflow_tests::run::{Account, run};

use crate::Measuring;
use crate::contest::{Contest, Sample};
use crate::kafka::{produced, sent};
use crate::report::Report;

/// Newline included.
const LINE_BYTES: usize = 100;
/// A gigabyte of lines.
const LINES: u64 = 10_000_000;
/// What goes to Kafka, in some seconds.
const TO_KAFKA: u64 = 3_000_000;
/// Of a batch, as wasmflow makes them where nothing else is said.
const BATCH: usize = 1000;

pub fn measure(report: &mut Report, measuring: &Measuring) -> anyhow::Result<()> {
    let folder = Folder::new("tail-bench");
    let (file, few, one) = (folder.join("lines.log"), folder.join("few.log"), folder.join("one.log"));
    write_lines(&file, LINES)?;
    write_lines(&few, TO_KAFKA)?;
    write_lines(&one, 1)?;
    let name = few.display().to_string();
    let both_headers = [("file", &name[..]), ("offset", "123456789")];
    // Compiled for the cache here, and not in the first run.
    run(quiet_run(&pipeline(&one, Road { interceptor: Some(pipelines::AFFIX), ..USUAL })))?;
    let mut contest = Contest::turning(measuring.runs);
    let counted = contest.reference("counting newlines, as `wc -l`", |_| in_process(&file, count));
    contest
        .line("1 GB of 100 B lines to null (beside counting)", "lines/s", Some(counted), |_| cost(&file, &one, USUAL));
    let native = contest.reference("native: lines split, bodies and headers as columns", |_| {
        in_process(&file, |path| columns(path, true))
    });
    contest.line("1 GB of 100 B lines to null", "lines/s", Some(native), |_| cost(&file, &one, USUAL));
    let bare = contest
        .reference("native: lines split, bodies as a column", |_| in_process(&file, |path| columns(path, false)));
    contest.line("1 GB of 100 B lines to null, without headers", "lines/s", Some(bare), |_| {
        cost(&file, &one, Road { keys: BARE, ..USUAL })
    });
    contest.line("1 GB of 100 B lines, prefix-suffix, to null", "lines/s", None, |_| {
        cost(&file, &one, Road { interceptor: Some(pipelines::AFFIX), ..USUAL })
    });
    if let Some(broker) = KafkaBroker::shared() {
        // The same kind of records on both sides: with headers there is a call for each, as librdkafka has none for many.
        for (what, keys, headers) in
            [("", BARE, &[][..]), (", with file and offset as headers", USUAL.keys, &both_headers)]
        {
            let raw = contest.reference(format!("raw producer loop fed from memory{what}"), move |_| {
                produced(broker, TO_KAFKA, LINE_BYTES - 1, headers)
            });
            contest.line(format!("100 B lines to Kafka{what}"), "lines/s", Some(raw), |_| {
                sent(broker, TO_KAFKA, |sink| pipeline(&few, Road { sink, keys, ..USUAL }))
            });
        }
    }
    contest.run(report)
}

/// What all lines cost beyond the first, whose cost is that of the start.
fn cost(file: &Path, one: &Path, road: Road<'_>) -> anyhow::Result<Sample> {
    let first = run(quiet_run(&pipeline(one, road)))?;
    Ok(Sample::rate(LINES as f64, &run(quiet_run(&pipeline(file, road)))?.beyond(first)))
}

/// Where the lines go, and on what way.
#[derive(Clone, Copy)]
struct Road<'r> {
    /// Further keys of the source's configuration.
    keys: &'r str,
    /// The table of the interceptor `affix`.
    interceptor: Option<&'r str>,
    sink: &'r str,
}

const USUAL: Road<'static> = Road { keys: "", interceptor: None, sink: pipelines::NOWHERE };

/// Events without headers.
const BARE: &str = ", file_header = false";

fn pipeline(file: &Path, road: Road<'_>) -> PipelineFile {
    let Road { keys, interceptor, sink } = road;
    let (interceptor, named) = match interceptor {
        Some(table) => (table, "interceptors = [\"affix\"]"),
        None => ("", ""),
    };
    let folder = file.parent().expect("it lies in a folder").display();
    PipelineFile::new(
        "tail",
        &format!(
            r#"{sink}{interceptor}
    [sources.log]
    {named}
    plugin = "tail"
    channels = ["events"]
    allow = {{ dirs = [{{ path = "{folder}" }}] }}
    config = {{ files = ["{}"], follow = false{keys} }}
"#,
            file.display()
        ),
    )
}

fn write_lines(path: &Path, lines: u64) -> anyhow::Result<()> {
    let mut file = BufWriter::with_capacity(1 << 20, File::create(path)?);
    for number in 0..lines {
        writeln!(file, "{number:010} {:x<88}", "")?;
    }
    file.flush().context("cannot write the lines")
}

fn in_process(path: &Path, work: impl Fn(&Path) -> anyhow::Result<u64>) -> anyhow::Result<Sample> {
    let account = Account::open()?;
    let lines = work(path)?;
    anyhow::ensure!(lines == LINES, "{lines} of {LINES} lines");
    Ok(Sample { resident: None, ..Sample::rate(lines as f64, &account.close()?) })
}

fn count(path: &Path) -> anyhow::Result<u64> {
    let mut file = File::open(path)?;
    let (mut buffer, mut lines) = (vec![0; 256 << 10], 0);
    loop {
        match file.read(&mut buffer)? {
            0 => return Ok(lines),
            read => lines += memchr::memchr_iter(b'\n', &buffer[..read]).count() as u64,
        }
    }
}

/// A batch as wasmflow has it: bodies laid end to end with their ends, and a header with the decimal offset of each line.
#[derive(Default)]
struct Columns {
    bodies: Vec<u8>,
    ends: Vec<u32>,
    offsets: Vec<u8>,
    offset_ends: Vec<u32>,
}

impl Columns {
    fn of_a_batch() -> Self {
        Self {
            bodies: Vec::with_capacity(BATCH * LINE_BYTES),
            ends: Vec::with_capacity(BATCH),
            offsets: Vec::with_capacity(BATCH * 12),
            offset_ends: Vec::with_capacity(BATCH),
        }
    }

    fn push(&mut self, line: &[u8], offset: Option<u64>) {
        self.bodies.extend_from_slice(line);
        self.ends.push(self.bodies.len() as u32);
        if let Some(offset) = offset {
            push_decimal(&mut self.offsets, offset);
            self.offset_ends.push(self.offsets.len() as u32);
        }
    }
}

fn push_decimal(out: &mut Vec<u8>, mut number: u64) {
    let mut digits = [0; 20];
    let mut at = digits.len();
    loop {
        at -= 1;
        digits[at] = b'0' + (number % 10) as u8;
        number /= 10;
        if number == 0 {
            break;
        }
    }
    out.extend_from_slice(&digits[at..]);
}

/// Splits the file and builds a fresh batch for each thousand lines.
fn columns(path: &Path, with_offsets: bool) -> anyhow::Result<u64> {
    let mut file = File::open(path)?;
    let (mut buffer, mut held) = (vec![0; 256 << 10], 0);
    let (mut batch, mut lines, mut offset) = (Columns::of_a_batch(), 0, 0);
    loop {
        let read = file.read(&mut buffer[held..])?;
        if read == 0 {
            return Ok(lines);
        }
        let (filled, mut start) = (held + read, 0);
        for end in memchr::memchr_iter(b'\n', &buffer[..filled]) {
            batch.push(&buffer[start..end], with_offsets.then_some(offset));
            (offset, lines) = (offset + (end + 1 - start) as u64, lines + 1);
            start = end + 1;
            if batch.ends.len() == BATCH {
                std::hint::black_box(std::mem::replace(&mut batch, Columns::of_a_batch()));
            }
        }
        buffer.copy_within(start..filled, 0);
        held = filled - start;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_references_see_every_line() {
        let folder = Folder::new("tail-reference");
        let path = folder.join("lines");
        write_lines(&path, 5000).unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().len(), 5000 * LINE_BYTES as u64);
        assert_eq!(count(&path).unwrap(), 5000);
        assert_eq!(columns(&path, true).unwrap(), 5000);
    }

    #[test]
    fn a_decimal_has_all_its_digits() {
        let mut out = Vec::new();
        [0, 7, 10, u64::MAX].into_iter().for_each(|number| push_decimal(&mut out, number));
        assert_eq!(String::from_utf8(out).unwrap(), format!("0710{}", u64::MAX));
    }
}
