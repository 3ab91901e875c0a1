//! The text of a pipeline file: read within bounds, and asked for lines and columns.

use std::io::Read as _;
use std::path::{Path, PathBuf};

use super::diagnostic::{Diagnostic, Span};

/// Limit: a pipeline file is written by people; what is larger is something else by mistake.
pub const MAX_FILE_BYTES: u64 = 1 << 20;

/// A file's name as it was given, and its text.
#[derive(Debug, Clone)]
pub struct FileText {
    pub path: PathBuf,
    /// Without a byte-order mark; line ends as they are. Where the file is not UTF-8, with replacement characters.
    pub text: String,
}

/// A place for people: both count from one, the column in characters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LineColumn {
    pub line: usize,
    pub column: usize,
}

impl FileText {
    /// Reads a pipeline file. What cannot be used as text comes back with what is wrong with it.
    pub fn read(path: &Path) -> (FileText, Option<Diagnostic>) {
        let file_text = |text| FileText { path: path.to_owned(), text };
        match read_bounded(path) {
            Err(diagnostic) => (file_text(String::new()), Some(diagnostic)),
            Ok(bytes) => {
                let (text, diagnostic) = decode(&bytes);
                (file_text(text), diagnostic)
            }
        }
    }

    /// A text that is at hand already.
    pub fn new(path: impl Into<PathBuf>, text: impl Into<String>) -> FileText {
        FileText { path: path.into(), text: text.into() }
    }

    pub fn line_column(&self, offset: usize) -> LineColumn {
        let before = &self.text[..self.floor(offset)];
        let line_start = before.rfind('\n').map_or(0, |newline| newline + 1);
        LineColumn { line: before.matches('\n').count() + 1, column: before[line_start..].chars().count() + 1 }
    }

    /// The same span, inside the text and on character boundaries, so that it can be sliced whatever a parser said.
    pub fn clamp(&self, span: &Span) -> Span {
        let start = self.floor(span.start);
        start..self.floor(span.end).max(start)
    }

    fn floor(&self, offset: usize) -> usize {
        self.text.floor_char_boundary(offset)
    }
}

fn read_bounded(path: &Path) -> Result<Vec<u8>, Diagnostic> {
    let unreadable =
        |error: std::io::Error| Diagnostic::file_error("unreadable", format!("cannot read the file: {error}"));
    let file = std::fs::File::open(path).map_err(unreadable)?;
    if file.metadata().map_err(unreadable)?.is_dir() {
        return Err(Diagnostic::file_error("unreadable", "this is a folder").hint("name the pipeline file in it"));
    }
    let mut bytes = Vec::new();
    file.take(MAX_FILE_BYTES + 1).read_to_end(&mut bytes).map_err(unreadable)?;
    if bytes.len() as u64 > MAX_FILE_BYTES {
        return Err(Diagnostic::file_error("too-large", "the file is larger than 1 MiB")
            .hint("a pipeline file is a few kilobytes of TOML: is this the right file?"));
    }
    Ok(bytes)
}

fn decode(bytes: &[u8]) -> (String, Option<Diagnostic>) {
    let bytes = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes);
    let Err(error) = std::str::from_utf8(bytes) else {
        return (String::from_utf8_lossy(bytes).into_owned(), None);
    };
    // What lies before the first bad byte is the same in the lossy text, so the offset holds there too.
    let at = error.valid_up_to();
    let diagnostic = Diagnostic::error(
        "not-utf8",
        at..at + char::REPLACEMENT_CHARACTER.len_utf8(),
        format!("the file is not UTF-8: byte {:#04x} has no place here", bytes[at]),
    );
    let text = String::from_utf8_lossy(bytes).into_owned();
    (text, Some(diagnostic.hint("save the file as UTF-8")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_count_characters_and_lines_count_from_one() {
        let file = FileText::new("p.toml", "a = 1\r\nü = 'x'\n");
        let place = file.line_column(file.text.find('=').unwrap() + 8);
        assert_eq!(place, LineColumn { line: 2, column: 3 });
    }

    #[test]
    fn a_byte_order_mark_is_no_part_of_the_text() {
        assert_eq!(decode(b"\xef\xbb\xbfa = 1").0, "a = 1");
    }

    #[test]
    fn the_first_byte_that_is_not_utf8_is_pointed_at() {
        let (text, diagnostic) = decode(b"a = \"\xff\"");
        let diagnostic = diagnostic.unwrap();
        assert_eq!(&text[diagnostic.span.unwrap()], "\u{fffd}");
        assert_eq!(diagnostic.message, "the file is not UTF-8: byte 0xff has no place here");
    }
}
