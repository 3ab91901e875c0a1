//! What reads the bytes of a log, for fuzzers: each decoder on bytes from anywhere, their checksums made to fit, since a checksum would else
//! keep nearly all of them out.

use bytes::Bytes;

use crate::compress;
use crate::format::cursor::{SLOT_BYTES, Slot};
use crate::format::frame::{HEAD_BYTES, Head, Meta, Parsed, Seat};
use crate::format::header::{BadHeader, Header};
use crate::put::ChannelId;

/// Where the frames of a fuzzer stand.
const SEAT: Seat = Seat { id: ChannelId([7; 16]), segment: 1, offset: 96 };

/// The columns of the frame that these bytes are, if they are one.
pub fn frame(bytes: &[u8]) -> Option<Vec<Bytes>> {
    let mut bytes = bytes.to_vec();
    let room = bytes.len() as u64;
    // As it stands: nearly always refused.
    let _ = Head::parse(&bytes, SEAT, room);
    if room >= HEAD_BYTES {
        let behind_meta = Head::fields(&bytes).payload_at();
        Head::seal(SEAT, bytes.get_mut(..usize::try_from(behind_meta).ok()?)?);
    }
    let Parsed::Head(head) = Head::parse(&bytes, SEAT, room) else { return None };
    let bytes = Bytes::from(bytes);
    let payload_at = head.payload_at() as usize;
    let meta = Meta::parse(bytes.slice(HEAD_BYTES as usize..payload_at))?;
    let payload = bytes.slice(payload_at..payload_at + head.payload_len as usize);
    compress::expand(payload, &meta.columns, head.compression)
}

/// Whether these bytes are a segment's header. One that is reads the same after it is written.
pub fn header(bytes: &[u8]) -> bool {
    let mut bytes = bytes.to_vec();
    Header::seal(&mut bytes);
    let bytes = Bytes::from(bytes);
    match Header::parse(&bytes, bytes.len() as u64) {
        Ok(header) => {
            let written = Bytes::from(header.write());
            let again = Header::parse(&written, written.len() as u64).expect("what was written can be read");
            assert_eq!(Header { length: header.length, ..again }, header);
            true
        }
        Err(BadHeader::More(wanted)) => {
            assert!(wanted > bytes.len() as u64, "it asks for what it has");
            false
        }
        Err(BadHeader::Newer(_) | BadHeader::Bad(_)) => false,
    }
}

/// Whether these bytes are a cursor's slot.
pub fn cursor(bytes: &[u8]) -> bool {
    let mut bytes = bytes.to_vec();
    if let Some(slot) = bytes.get_mut(..SLOT_BYTES) {
        Slot::seal(slot, "reader");
    }
    Slot::parse(&bytes, "reader").is_ok()
}
