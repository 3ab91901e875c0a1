//! The segments of a channel: their headers, and whether they form a chain.

use std::path::{Path, PathBuf};

use super::tail::{find_end, scan_tail};
use super::{ChannelScan, Look, SEQUENCE_JUMP, SegmentInfo, cursors, io_error};
use crate::channel::{MOST_SPARES, Spare};
use crate::error::{Damage, OpenError};
use crate::format::FORMAT;
use crate::format::header::{BadHeader, End, Header};
use crate::names;
use crate::options::ChannelOptions;
use crate::segment::read_header;
use crate::storage::Storage;

/// Looks at everything in a channel's folder that recovery needs to know.
///
/// # Errors
/// When files cannot be read, or are not this channel's. Damage is part of the answer, not an error.
pub fn scan(
    storage: &dyn Storage,
    path: &Path,
    options: &ChannelOptions,
    look: Look,
) -> Result<ChannelScan, OpenError> {
    let mut scan = ChannelScan::new(options, path.into());
    let mut files: Vec<(u64, u64, PathBuf)> = Vec::new();
    let mut readers = Vec::new();
    for entry in storage.list(path).map_err(io_error(path))? {
        if entry.is_folder {
            continue;
        }
        if let Some((number, base)) = names::parse_segment(&entry.name) {
            files.push((number, base, path.join(&entry.name)));
        } else if let Some(reader) = names::parse_cursor(&entry.name) {
            readers.push(reader);
        } else if entry.name.ends_with(names::TEMPORARY) {
            scan.leftovers.push(path.join(&entry.name));
        } else if names::is_spare(&entry.name) {
            spare(storage, &mut scan, path.join(&entry.name), options)?;
        }
    }
    files.sort();
    readers.sort();
    scan.last_number = files.last().map_or(0, |file| file.0);
    let headers = read_headers(storage, &mut scan, files)?;
    cursors::read(storage, &mut scan, readers, headers.last().map(|(header, ..)| &*header.readers))?;
    chain(storage, &mut scan, headers, look)?;
    cursors::check(&mut scan, look)?;
    Ok(scan)
}

/// Keeps a file for a later segment if it is worth that.
fn spare(
    storage: &dyn Storage,
    scan: &mut ChannelScan,
    path: PathBuf,
    options: &ChannelOptions,
) -> Result<(), OpenError> {
    let bytes = storage.open_read(&path).and_then(|file| file.len()).map_err(io_error(&path))?;
    match scan.spares.len() < MOST_SPARES && Spare::fits(bytes, options.segment_bytes) {
        true => scan.spares.push(Spare { path, bytes }),
        false => scan.leftovers.push(path),
    }
    Ok(())
}

type Headers = Vec<(Header, PathBuf, u64)>;

/// The good headers in order. Bad ones are damage, those of others an error.
fn read_headers(
    storage: &dyn Storage,
    scan: &mut ChannelScan,
    files: Vec<(u64, u64, PathBuf)>,
) -> Result<Headers, OpenError> {
    let mut headers: Headers = Vec::with_capacity(files.len());
    for (number, base, path) in files {
        let file = storage.open_read(&path).map_err(io_error(&path))?;
        let file_bytes = file.len().map_err(io_error(&path))?;
        let header = match read_header(&*file).map_err(io_error(&path))? {
            Ok(header) => header,
            Err(BadHeader::Newer(found)) => return Err(OpenError::NewerFormat { path, found, known: FORMAT }),
            Err(BadHeader::Bad(why)) => {
                scan.damage.push(damage(scan, &path, (0, file_bytes), base, None, why));
                continue;
            }
            Err(BadHeader::More(_)) => unreachable!("`read_header` reads all there is"),
        };
        if scan.id.is_some_and(|id| id != header.id) {
            return Err(scan.foreign(&path, "it was written for another channel than the segments before it"));
        }
        scan.id = Some(header.id);
        if (header.number, header.base_sequence) != (number, base) {
            let why = format!("it was renamed: it is segment {}", header.number);
            scan.damage.push(damage(scan, &path, (0, file_bytes), base, None, &why));
            continue;
        }
        headers.push((header, path, file_bytes));
    }
    Ok(headers)
}

pub(super) fn damage(
    scan: &ChannelScan,
    path: &Path,
    (from, to): (u64, u64),
    sequence: u64,
    lost_events: Option<u64>,
    detail: &str,
) -> Damage {
    Damage { channel: scan.name.clone(), path: path.into(), from, to, sequence, lost_events, detail: detail.into() }
}

fn chain(storage: &dyn Storage, scan: &mut ChannelScan, mut headers: Headers, look: Look) -> Result<(), OpenError> {
    let Some((last, last_path, last_bytes)) = headers.pop() else { return Ok(()) };
    for at in 0..headers.len() {
        let next = headers.get(at + 1).map_or(&last, |(next, ..)| next);
        let (header, path, file_bytes) = &headers[at];
        let end = if next.number == header.number + 1 {
            next.previous
        } else {
            let end = find_end(storage, scan, header, path)?;
            let lost = next.base_sequence.saturating_sub(end.sequence);
            let why = format!("segments {} to {} are missing or damaged", header.number + 1, next.number - 1);
            scan.damage.push(damage(scan, path, (end.offset, end.offset), end.sequence, Some(lost), &why));
            end
        };
        if end.offset < header.length || end.offset > *file_bytes {
            let why = "it is shorter than the next segment says";
            let lost = end.sequence.checked_sub(header.base_sequence);
            scan.damage.push(damage(scan, path, (*file_bytes, end.offset), header.base_sequence, lost, why));
        }
        scan.segments.push(info(header, path.clone(), *file_bytes, end));
    }
    let lost_behind = scan.last_number > last.number;
    tail(storage, scan, last, last_path, last_bytes, look)?;
    if lost_behind {
        // Acknowledged events were in a segment that cannot be used, nobody knows how many.
        scan.next_sequence += SEQUENCE_JUMP;
    }
    Ok(())
}

fn tail(
    storage: &dyn Storage,
    scan: &mut ChannelScan,
    header: Header,
    path: PathBuf,
    file_bytes: u64,
    look: Look,
) -> Result<(), OpenError> {
    let found = scan_tail(storage, scan, &header, &path, look)?;
    scan.lossy = header.lossy;
    scan.next_frame = found.next_frame;
    scan.next_sequence = found.next_sequence;
    scan.tracks = found.tracks;
    scan.voids.clone_from(&header.voids);
    scan.segments.push(info(&header, path, file_bytes, found.end));
    let oldest = scan.segments[0].base_frame;
    scan.voids.retain(|frame, _| *frame >= oldest);
    Ok(())
}

fn info(header: &Header, path: PathBuf, file_bytes: u64, end: End) -> SegmentInfo {
    SegmentInfo {
        number: header.number,
        path,
        header_bytes: header.length,
        base_frame: header.base_frame,
        base_sequence: header.base_sequence,
        previous_sequence: if header.number == 1 { header.base_sequence } else { header.previous.sequence },
        created_ms: header.created_ms,
        file_bytes,
        end,
    }
}
