//! What is written for a batch.

use wasmflow_sdk::json;
use wasmflow_sdk::prelude::*;

/// How events become lines.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Format {
    /// The body as it is and a newline.
    #[default]
    Text,
    /// One object a line.
    Json,
}

/// All lines of a batch, so that it is written in one go.
pub fn lines(format: Format, batch: &Batch) -> Vec<u8> {
    let bodies = batch.bodies();
    match format {
        Format::Text => text_lines(&bodies),
        Format::Json => json_lines(batch, &bodies),
    }
}

fn text_lines(bodies: &Packed) -> Vec<u8> {
    let mut lines = Vec::with_capacity(bodies.data.len() + bodies.count());
    for body in bodies {
        lines.extend_from_slice(body);
        lines.push(b'\n');
    }
    lines
}

fn json_lines(batch: &Batch, bodies: &Packed) -> Vec<u8> {
    let names = batch.header_names().into_iter();
    let columns: Vec<_> = names.filter_map(|name| batch.header(&name).map(|column| (name, column))).collect();
    let mut lines = Vec::with_capacity(bodies.data.len() + bodies.count() * 32);
    for (row, body) in bodies.iter().enumerate() {
        let headers = columns.iter().filter_map(|(name, column)| Some((&name[..], column.get(row)?)));
        lines.push(b'{');
        json::write_members(&mut lines, headers, body);
        lines.extend_from_slice(b"}\n");
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(format: Format) -> String {
        let mut batch = Batch::from_bodies([&b"one\ntwo"[..], b"", b"\xff"]);
        batch.set_header("level", Column::constant("info")).unwrap();
        String::from_utf8_lossy(&lines(format, &batch)).into_owned()
    }

    #[test]
    fn text_is_the_body_as_it_is() {
        assert_eq!(written(Format::Text), "one\ntwo\n\n\u{fffd}\n");
    }

    #[test]
    fn json_is_one_line_for_each_event_and_loses_nothing() {
        let expected = concat!(
            r#"{"headers":{"level":"info"},"body":"one\ntwo"}"#,
            "\n",
            r#"{"headers":{"level":"info"},"body":""}"#,
            "\n",
            r#"{"headers":{"level":"info"},"body":{"base64":"/w=="}}"#,
            "\n",
        );
        assert_eq!(written(Format::Json), expected);
    }
}
