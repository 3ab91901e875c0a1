//! One event as text.

use wasmflow_sdk::json;
use wasmflow_sdk::prelude::*;

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Format {
    #[default]
    Flume,
    Text,
    Json,
}

/// Appends one event, without a newline. A body longer than `max_body_bytes` is cut there, with a mark that says how long
/// it was.
pub fn write_event<'e>(
    out: &mut Vec<u8>,
    format: Format,
    max_body_bytes: usize,
    headers: impl Iterator<Item = (&'e str, &'e [u8])>,
    body: &[u8],
) {
    let shown = &body[..body.len().min(max_body_bytes)];
    let cut_from = (shown.len() < body.len()).then_some(body.len());
    match format {
        Format::Flume => write_flume(out, headers, shown, cut_from),
        Format::Text => write_text(out, shown, cut_from),
        Format::Json => write_json(out, headers, shown, cut_from),
    }
}

fn write_flume<'e>(
    out: &mut Vec<u8>,
    headers: impl Iterator<Item = (&'e str, &'e [u8])>,
    body: &[u8],
    cut_from: Option<usize>,
) {
    out.extend_from_slice(b"Event: { headers:{");
    for (index, (name, value)) in headers.enumerate() {
        if index > 0 {
            out.extend_from_slice(b", ");
        }
        write_line_of(out, name.as_bytes());
        out.push(b'=');
        write_line_of(out, value);
    }
    out.extend_from_slice(b"} body: ");
    write_hex(out, body);
    out.extend(body.iter().map(|&byte| if byte.is_ascii_graphic() || byte == b' ' { byte } else { b'.' }));
    write_mark(out, cut_from);
    out.extend_from_slice(if body.is_empty() && cut_from.is_none() { b"}" } else { b" }" });
}

/// Two digits and a space for each byte. The room is made before the loop: asked for byte by byte it takes twice the time.
fn write_hex(out: &mut Vec<u8>, body: &[u8]) {
    const HEX: &[u8; 16] = b"0123456789ABCDEF";
    let start = out.len();
    out.resize(start + 3 * body.len(), b' ');
    for (place, byte) in out[start..].chunks_exact_mut(3).zip(body) {
        place[0] = HEX[usize::from(byte >> 4)];
        place[1] = HEX[usize::from(byte & 15)];
    }
}

/// Text that stays on its line and changes no terminal: control characters, and what is not UTF-8, become dots.
fn write_line_of(out: &mut Vec<u8>, text: &[u8]) {
    for chunk in text.utf8_chunks() {
        for letter in chunk.valid().chars() {
            let shown = if letter.is_control() { '.' } else { letter };
            out.extend_from_slice(shown.encode_utf8(&mut [0; 4]).as_bytes());
        }
        out.extend(chunk.invalid().iter().map(|_| b'.'));
    }
}

fn write_text(out: &mut Vec<u8>, body: &[u8], cut_from: Option<usize>) {
    out.extend_from_slice(body);
    write_mark(out, cut_from);
}

fn write_mark(out: &mut Vec<u8>, cut_from: Option<usize>) {
    if let Some(bytes) = cut_from {
        out.extend_from_slice(format!("... (cut, {bytes} bytes)").as_bytes());
    }
}

fn write_json<'e>(
    out: &mut Vec<u8>,
    headers: impl Iterator<Item = (&'e str, &'e [u8])>,
    body: &[u8],
    cut_from: Option<usize>,
) {
    out.push(b'{');
    json::write_members(out, headers, if cut_from.is_some() { whole_letters(body) } else { body });
    if let Some(bytes) = cut_from {
        out.extend_from_slice(format!(r#","cut_from_bytes":{bytes}"#).as_bytes());
    }
    out.push(b'}');
}

/// A cut may have gone through a letter, which would make text look like bytes.
fn whole_letters(cut: &[u8]) -> &[u8] {
    match std::str::from_utf8(cut) {
        Err(error) if error.error_len().is_none() => &cut[..error.valid_up_to()],
        _ => cut,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(format: Format, max: usize, headers: &[(&str, &[u8])], body: &[u8]) -> String {
        let mut out = Vec::new();
        write_event(&mut out, format, max, headers.iter().copied(), body);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn what_cannot_be_printed_is_a_dot() {
        let line = written(Format::Flume, 100, &[("n\n", b"v\x1b[1m\xff\xc3\xa9")], b"a\r\n\xff");
        assert_eq!(line, "Event: { headers:{n.=v.[1m.é} body: 61 0D 0A FF a... }");
    }

    #[test]
    fn an_empty_body_is_shown_as_none() {
        assert_eq!(written(Format::Flume, 100, &[], b""), "Event: { headers:{} body: }");
    }

    #[test]
    fn a_cut_is_marked_with_the_full_length() {
        assert_eq!(written(Format::Flume, 2, &[], b"abcd"), "Event: { headers:{} body: 61 62 ab... (cut, 4 bytes) }");
        assert_eq!(written(Format::Text, 2, &[], b"abcd"), "ab... (cut, 4 bytes)");
        let json = written(Format::Json, 2, &[], "aé".as_bytes());
        assert_eq!(json, r#"{"headers":{},"body":"a","cut_from_bytes":3}"#);
    }

    #[test]
    fn a_body_at_the_limit_is_whole() {
        assert_eq!(written(Format::Text, 4, &[], b"abcd"), "abcd");
    }
}
