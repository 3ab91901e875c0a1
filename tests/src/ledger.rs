//! The oracle of the end-to-end tests: every event is numbered, and what arrives is held against what was sent.
//!
//! A line is `<stream> <number> <check>`, where the check is made of the other two, so that an altered or invented event
//! cannot pass for a sent one.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// The line with this number of the stream.
pub fn line(stream: &str, number: u64) -> String {
    format!("{stream} {number} {:08x}", check(stream, number))
}

/// The lines `numbers` of the stream, each with its newline.
pub fn lines(stream: &str, numbers: std::ops::Range<u64>) -> String {
    numbers.flat_map(|number| [line(stream, number), "\n".to_owned()]).collect()
}

/// Appends about 5,000 lines a second of the stream `log` to a new file, in pieces cut anywhere, until told to stop; gives how many.
///
/// # Errors
/// When the file cannot be written.
pub fn append_until(log: &std::path::Path, stop: &AtomicBool) -> std::io::Result<u64> {
    let mut file = std::fs::File::create(log)?;
    let mut written = 0;
    while !stop.load(Ordering::Relaxed) {
        let text = lines("log", written..written + 25);
        let (first, second) = text.split_at(text.len() / 3);
        file.write_all(first.as_bytes())?;
        std::thread::sleep(Duration::from_millis(5));
        file.write_all(second.as_bytes())?;
        written += 25;
    }
    Ok(written)
}

/// FNV-1a: short, and any change of one byte changes it.
fn check(stream: &str, number: u64) -> u32 {
    let bytes = stream.bytes().chain(number.to_le_bytes());
    bytes.fold(0x811c_9dc5, |hash, byte| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193))
}

/// What has arrived, for each stream in the order of arrival.
#[derive(Debug, Default)]
pub struct Ledger {
    streams: BTreeMap<String, Vec<u64>>,
}

impl Ledger {
    /// Takes the lines that have arrived.
    ///
    /// # Panics
    /// At a line that no stream has sent in this form.
    pub fn of<L: AsRef<str>>(lines: impl IntoIterator<Item = L>) -> Self {
        let mut ledger = Self::default();
        for line in lines {
            ledger.arrived(line.as_ref());
        }
        ledger
    }

    /// Notes one line.
    ///
    /// # Panics
    /// When no stream has sent it in this form.
    pub fn arrived(&mut self, line: &str) {
        let (stream, number) = parse(line).unwrap_or_else(|| panic!("nobody sent the line `{line}`"));
        match self.streams.get_mut(stream) {
            Some(numbers) => numbers.push(number),
            None => drop(self.streams.insert(stream.to_owned(), vec![number])),
        }
    }

    fn numbers(&self, stream: &str) -> &[u64] {
        self.streams.get(stream).map(Vec::as_slice).unwrap_or_default()
    }

    /// How many lines of the stream have arrived, repeats included.
    pub fn count(&self, stream: &str) -> usize {
        self.numbers(stream).len()
    }

    /// The highest number of the stream that has arrived.
    pub fn highest(&self, stream: &str) -> Option<u64> {
        self.numbers(stream).iter().max().copied()
    }

    /// Lines `0..count` have arrived, each once, in order, and no others.
    ///
    /// # Panics
    /// At the first difference.
    pub fn assert_each_once_in_order(&self, stream: &str, count: u64) {
        if let Some(difference) = self.first_difference(stream, count) {
            panic!("stream `{stream}`: {difference}");
        }
    }

    /// Where what has arrived is something else than lines `0..count`, each once and in order.
    pub fn first_difference(&self, stream: &str, count: u64) -> Option<String> {
        let numbers = self.numbers(stream);
        let wrong = numbers.iter().zip(0..).find(|(arrived, expected)| **arrived != *expected);
        if let Some((arrived, due)) = wrong {
            let lines = numbers.len();
            return Some(format!("{arrived} arrived where {due} was due, {lines} lines in all of {count}"));
        }
        (numbers.len() as u64 != count).then(|| format!("{} of {count} lines arrived", numbers.len()))
    }

    /// Lines `0..count` have arrived and no others, some perhaps more than once, and what arrived for the first time came in order.
    ///
    /// # Panics
    /// When a line is missing or one was overtaken.
    pub fn assert_none_lost(&self, stream: &str, count: u64) {
        let mut next = 0;
        for &number in self.numbers(stream) {
            assert!(number <= next, "stream `{stream}`: {number} arrived before {next} did");
            next = next.max(number + 1);
        }
        assert_eq!(next, count, "stream `{stream}`: lines from {next} on never arrived");
    }
}

fn parse(line: &str) -> Option<(&str, u64)> {
    let mut fields = line.split(' ');
    let (stream, number) = (fields.next()?, fields.next()?.parse().ok()?);
    let sent = u32::from_str_radix(fields.next()?, 16).ok()?;
    (fields.next().is_none() && sent == check(stream, number)).then_some((stream, number))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_sent_in_order_passes() {
        let ledger = Ledger::of([line("a", 0), line("b", 0), line("a", 1)]);
        ledger.assert_each_once_in_order("a", 2);
        ledger.assert_none_lost("b", 1);
    }

    #[test]
    #[should_panic(expected = "nobody sent")]
    fn an_altered_line_is_found() {
        Ledger::of([line("a", 0).replace("a 0", "a 1")]);
    }

    #[test]
    #[should_panic(expected = "1 arrived before 0")]
    fn an_overtaken_line_is_found() {
        Ledger::of([line("a", 1), line("a", 0)]).assert_none_lost("a", 2);
    }

    #[test]
    #[should_panic(expected = "0 arrived where 1 was due")]
    fn a_repeated_line_is_found() {
        Ledger::of([line("a", 0), line("a", 0)]).assert_each_once_in_order("a", 1);
    }

    #[test]
    #[should_panic(expected = "never arrived")]
    fn a_lost_line_is_found() {
        Ledger::of([line("a", 0)]).assert_none_lost("a", 2);
    }
}
