//! The names of files in a channel's folder.

use std::path::{Path, PathBuf};
use std::sync::Arc;

pub const FOLDER_FILE: &str = "folder";
pub const QUARANTINE: &str = "quarantine";
/// What is being made; renamed when it is whole.
pub const TEMPORARY: &str = ".tmp";
const SEGMENT: &str = ".log";
const CURSOR: &str = ".cursor";
const SPARE: &str = ".spare";

pub fn segment(number: u64, base_sequence: u64) -> String {
    format!("{number:010}-{base_sequence:020}{SEGMENT}")
}

/// Number and base sequence of a segment by its name.
pub fn parse_segment(name: &str) -> Option<(u64, u64)> {
    let (number, base) = name.strip_suffix(SEGMENT)?.split_once('-')?;
    Some((number.parse().ok()?, base.parse().ok()?))
}

/// What a segment becomes whose events nobody needs: space for a later one.
pub fn spare(number: u64) -> String {
    format!("{number:010}{SPARE}")
}

pub fn is_spare(name: &str) -> bool {
    name.strip_suffix(SPARE).is_some_and(|number| number.parse::<u64>().is_ok())
}

pub fn cursor(reader: &str) -> String {
    format!("{reader}{CURSOR}")
}

pub fn parse_cursor(name: &str) -> Option<Arc<str>> {
    name.strip_suffix(CURSOR).map(Arc::from)
}

/// Whether a channel or reader can lend its name to a file.
pub fn is_usable(name: &str) -> bool {
    !name.is_empty() && name.len() <= 200 && !name.starts_with('.') && !name.contains(['/', '\0'])
}

pub fn temporary(folder: &Path) -> PathBuf {
    folder.join(format!("next{TEMPORARY}"))
}
