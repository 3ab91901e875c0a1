//! Prints events to standard output, as Flume's logger does or in plainer formats.

mod format;

use wasmflow_sdk::console;
use wasmflow_sdk::prelude::*;

use format::{Format, write_event};

/// How events are printed.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// `flume`: headers, and the body in hex and as text. `text`: the body and a newline. `json`: one object a line.
    #[serde(default)]
    format: Format,
    /// A longer body is cut there, and marked with its full length.
    #[serde(default = "sixteen_kib")]
    max_body_bytes: ByteSize,
}

/// Two digits, a space and the letter, in the format that writes most.
const BYTES_FOR_ONE: usize = 4;

fn sixteen_kib() -> ByteSize {
    ByteSize(16 * 1024)
}

/// The sink.
pub struct Logger {
    config: Config,
}

impl Sink for Logger {
    type Config = Config;
    const ABOUT: &'static str = "Prints events to standard output.";

    fn open(config: Config) -> Result<Self, Failure> {
        Ok(Logger { config })
    }

    fn deliver(&mut self, batch: &mut Batch, _delivery: &Delivery) -> Result<Outcome, Failure> {
        console::write(&self.lines(batch))?;
        Ok(Outcome::Delivered)
    }
}

wasmflow_sdk::export_sink!(Logger);

impl Logger {
    /// The text of the whole batch, so that it is written in one go and never mixed with another sink's.
    fn lines(&self, batch: &Batch) -> Vec<u8> {
        let bodies = batch.bodies();
        let columns = self.columns(batch);
        let shown = bodies.data.len().min(bodies.count().saturating_mul(self.config.max_body_bytes.bytes()));
        let mut lines = Vec::with_capacity(shown * BYTES_FOR_ONE + bodies.count() * 32);
        for (row, body) in bodies.iter().enumerate() {
            let headers = columns.iter().filter_map(|(name, column)| Some((&name[..], column.get(row)?)));
            write_event(&mut lines, self.config.format, self.config.max_body_bytes.bytes(), headers, body);
            lines.push(b'\n');
        }
        lines
    }

    fn columns(&self, batch: &Batch) -> Vec<(String, Column)> {
        if self.config.format == Format::Text {
            return Vec::new();
        }
        let names = batch.header_names().into_iter();
        names.filter_map(|name| batch.header(&name).map(|column| (name, column))).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(format: Format, events: &[Event]) -> String {
        let logger = Logger::open(Config { format, max_body_bytes: sixteen_kib() }).unwrap();
        String::from_utf8(logger.lines(&Batch::from_events(events))).unwrap()
    }

    #[test]
    fn each_event_is_one_line_with_the_headers_it_carries() {
        let events =
            [Event::new("hi").with_header("a", "1").with_header("b", "2"), Event::new("x").with_header("b", "3")];
        let flume = lines(Format::Flume, &events);
        assert_eq!(flume, "Event: { headers:{a=1, b=2} body: 68 69 hi }\nEvent: { headers:{b=3} body: 78 x }\n");
        assert_eq!(lines(Format::Text, &events), "hi\nx\n");
        let json = lines(Format::Json, &events);
        assert_eq!(json.lines().last(), Some(r#"{"headers":{"b":"3"},"body":"x"}"#));
    }

    #[test]
    fn the_official_case_prints_as_in_the_tutorial() {
        let line = lines(Format::default(), &[Event::new("hello flume")]);
        assert_eq!(line, "Event: { headers:{} body: 68 65 6C 6C 6F 20 66 6C 75 6D 65 hello flume }\n");
    }
}
