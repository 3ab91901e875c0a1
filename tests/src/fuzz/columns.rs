//! Columns as a guest hands them over: the bytes are a row of changes to one batch, each of them checked against what the batch was before.

use bytes::Bytes;
use wasmflow::capability::handed::{Batch, Batches, OutputBound, from_rows, to_rows};
use wasmflow::event::{self, Column, Event, Packed, PackedError};

/// What a call may make here: small, so that its limits are met.
const BOUND: OutputBound = OutputBound { events: 64, bytes: 4096 };

/// # Panics
/// When a change that is refused has changed something, or one that is not has made a batch that does not hold together.
pub fn columns(bytes: &[u8]) {
    let mut bytes = Reader(bytes);
    let mut batches = Batches::new(1 << 16);
    batches.bound = BOUND;
    let mut batch = Batch::lent(event::Batch::new(["one", "", "three"].iter().collect()));
    while let Some(kind) = bytes.byte() {
        let before = batch.events.clone();
        let rejected = batch.rejected.len();
        if change(kind, &mut bytes, &mut batch, &batches).is_err() {
            // The call has ended: its batch is thrown away.
            return;
        }
        if batches.bounded(&batch.events).is_err() {
            return;
        }
        assert_whole(&batch.events, &batches);
        assert!(batch.rejected.len() >= rejected && batch.rejected.iter().all(|one| one.event.count() == 1));
        drop(before);
    }
}

/// Makes one change. An error ends the guest's call.
fn change(kind: u8, bytes: &mut Reader<'_>, batch: &mut Batch, batches: &Batches) -> Result<(), ()> {
    let before = batch.events.clone();
    let answer = match kind % 6 {
        0 => packed(bytes).map_err(drop_error).and_then(|bodies| batch.set_bodies(bodies)),
        1 => {
            let (name, column) = (bytes.text(), column(bytes));
            column.map_err(drop_error).and_then(|column| batch.set_header(&name, column))
        }
        2 => batch.select(&bytes.numbers(), batches).map_err(drop)?,
        3 => batch.reject(bytes.numbers().into_iter().map(|row| (row, bytes.text())).collect()),
        4 => {
            batch.events.remove_header(&bytes.text());
            Ok(())
        }
        _ => {
            let rows: Vec<Event> = (0..bytes.byte().unwrap_or(0) % 8).map(|_| event(bytes)).collect();
            batch.set_events(from_rows(&rows).map_err(drop)?);
            Ok(())
        }
    };
    if answer.is_err() {
        assert_eq!(before.events(), batch.events.events(), "a refused change has changed something");
    }
    Ok(())
}

fn drop_error(error: PackedError) -> String {
    error.to_string()
}

/// Every column has what each event asks of it.
fn assert_whole(batch: &event::Batch, batches: &Batches) {
    assert_eq!(batch.bodies().len(), batch.count());
    let size = batch.byte_size();
    for (_, column) in batch.columns() {
        (0..batch.count()).for_each(|row| drop(column.get(row)));
    }
    if let Ok(rows) = to_rows(batch, batches) {
        assert_eq!(rows.len(), batch.count());
        assert!(rows.iter().map(|row| row.body.len()).sum::<usize>() <= size);
    }
}

fn packed(bytes: &mut Reader<'_>) -> Result<Packed, PackedError> {
    let ends = bytes.numbers();
    Packed::new(bytes.some().to_vec(), ends)
}

fn column(bytes: &mut Reader<'_>) -> Result<Column, PackedError> {
    Ok(match bytes.byte().unwrap_or(0) % 3 {
        0 => Column::Constant(Bytes::copy_from_slice(bytes.some())),
        1 => Column::Dense(packed(bytes)?),
        _ => Column::Sparse { rows: bytes.numbers().into(), values: packed(bytes)? },
    })
}

fn event(bytes: &mut Reader<'_>) -> Event {
    let headers = (0..bytes.byte().unwrap_or(0) % 4).map(|_| (bytes.text().into(), bytes.some().to_vec())).collect();
    Event { headers, body: bytes.some().to_vec() }
}

/// The bytes as columns of a frame: each with its length in front.
pub fn cut(bytes: &[u8]) -> Vec<Bytes> {
    let mut bytes = Reader(bytes);
    std::iter::from_fn(|| (!bytes.0.is_empty()).then(|| Bytes::copy_from_slice(bytes.some()))).collect()
}

/// Bytes, from the front.
struct Reader<'b>(&'b [u8]);

impl<'b> Reader<'b> {
    fn byte(&mut self) -> Option<u8> {
        let (&byte, rest) = self.0.split_first()?;
        self.0 = rest;
        Some(byte)
    }

    /// Up to 255 bytes, or up to 254 times 256 where the length says 255.
    fn some(&mut self) -> &'b [u8] {
        let length = match self.byte().unwrap_or(0) {
            255 => usize::from(self.byte().unwrap_or(0)) * 256,
            length => usize::from(length),
        };
        let (some, rest) = self.0.split_at(length.min(self.0.len()));
        self.0 = rest;
        some
    }

    fn text(&mut self) -> String {
        String::from_utf8_lossy(self.some()).into_owned()
    }

    /// Small numbers mostly; 250 and more stand for what does not fit anything.
    fn numbers(&mut self) -> Vec<u32> {
        let number = |&byte: &u8| if byte >= 250 { u32::MAX - u32::from(255 - byte) } else { u32::from(byte) };
        self.some().iter().map(number).collect()
    }
}
