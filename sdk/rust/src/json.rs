//! An event as one JSON object, the same in every plugin that writes JSON.
//!
//! `{"headers":{"name":"value"},"body":"text"}`; a value that is not UTF-8 is `{"base64":"…"}`, so that none is lost.

use crate::append::append_all;

/// Appends a value: a string, or its base64 in an object when it is not UTF-8.
#[inline]
pub fn write_value(out: &mut Vec<u8>, value: &[u8]) {
    if is_plain(value) {
        return append_all(out, [b"\"", value, b"\""]);
    }
    match std::str::from_utf8(value) {
        Ok(text) => write_escaped(out, text),
        Err(_) => write_binary(out, value),
    }
}

/// Appends `{"base64":"…"}`, for a value that is known to be no text even where it happens to be UTF-8.
pub fn write_binary(out: &mut Vec<u8>, value: &[u8]) {
    out.extend_from_slice(br#"{"base64":""#);
    write_base64(out, value);
    out.extend_from_slice(br#""}"#);
}

/// Appends a JSON string with its quotes.
#[inline]
pub fn write_string(out: &mut Vec<u8>, text: &str) {
    match is_plain(text.as_bytes()) {
        true => append_all(out, [b"\"", text.as_bytes(), b"\""]),
        false => write_escaped(out, text),
    }
}

#[inline(never)]
fn write_escaped(out: &mut Vec<u8>, text: &str) {
    serde_json::to_writer(out, text).expect("a string can always be written to memory");
}

/// Whether a string of these bytes has nothing to be escaped: printable ASCII without quotes and backslashes. Most strings are so,
/// and 16 bytes are looked at together.
#[inline]
fn is_plain(bytes: &[u8]) -> bool {
    // Those from 0x80 on are negative.
    let stays = |byte: u8| (byte as i8 >= 0x20) & (byte != b'"') & (byte != b'\\');
    let (blocks, rest) = bytes.as_chunks::<16>();
    blocks.iter().all(|block| block.iter().fold(true, |all, byte| all & stays(*byte)))
        && rest.iter().fold(true, |all, byte| all & stays(*byte))
}

/// Appends `"headers":{…},"body":…`, to which a caller may add members of its own before the closing brace.
pub fn write_members<'e>(out: &mut Vec<u8>, headers: impl IntoIterator<Item = (&'e str, &'e [u8])>, body: &[u8]) {
    out.extend_from_slice(br#""headers":{"#);
    for (index, (name, value)) in headers.into_iter().enumerate() {
        if index > 0 {
            out.push(b',');
        }
        write_string(out, name);
        out.push(b':');
        write_value(out, value);
    }
    out.extend_from_slice(br#"},"body":"#);
    write_value(out, body);
}

/// Appends base64 in the standard alphabet, with padding (RFC 4648).
pub fn write_base64(out: &mut Vec<u8>, bytes: &[u8]) {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    for chunk in bytes.chunks(3) {
        let word = (0..3).fold(0u32, |word, index| word << 8 | u32::from(chunk.get(index).copied().unwrap_or(0)));
        for digit in 0..4 {
            match digit <= chunk.len() {
                true => out.push(ALPHABET[(word >> (18 - 6 * digit)) as usize & 63]),
                false => out.push(b'='),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn value(bytes: &[u8]) -> String {
        let mut out = Vec::new();
        write_value(&mut out, bytes);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn text_is_a_string_and_anything_else_base64() {
        assert_eq!(value("a\"\n\u{1b}é".as_bytes()), r#""a\"\n\u001bé""#);
        assert_eq!(value(b"\xff"), r#"{"base64":"/w=="}"#);
        assert_eq!(value(b"\xff\xfe"), r#"{"base64":"//4="}"#);
        assert_eq!(value(b"\xff\xfe\x00\x10"), r#"{"base64":"//4AEA=="}"#);
    }

    #[test]
    fn what_needs_escaping_is_found_wherever_it_stands() {
        for length in 0..70 {
            let plain = "x".repeat(length);
            assert_eq!(value(plain.as_bytes()), format!("\"{plain}\""));
            for (letter, written) in [("\"", "\\\""), ("\\", "\\\\"), ("\n", "\\n"), ("\u{1f}", "\\u001f"), ("é", "é")]
            {
                for place in 0..length {
                    let (text, expected) = (plain.clone(), plain.clone());
                    let text = [&text[..place], letter, &text[place..]].concat();
                    let expected = [&expected[..place], written, &expected[place..]].concat();
                    assert_eq!(value(text.as_bytes()), format!("\"{expected}\""));
                }
            }
        }
    }

    #[test]
    fn an_event_is_headers_and_body() {
        let mut out = Vec::new();
        write_members(&mut out, [("a", &b"1"[..]), ("b", b"2")], b"x");
        assert_eq!(out, br#""headers":{"a":"1","b":"2"},"body":"x""#);
    }
}
