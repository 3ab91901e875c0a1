//! Lies about a batch. Where the host answers an error, the lie is fatal with the word `refused`; where it took it, with
//! `breach`.

use wasmflow_sdk::packed::SparseValues;
use wasmflow_sdk::prelude::*;

use crate::Mode;

/// Lies about the batch of this call.
pub fn about(mode: Mode, batch: &mut Batch) -> Result<(), Failure> {
    let count = batch.count() as u32;
    let told = match mode {
        Mode::EndsDecrease | Mode::EndsShort | Mode::EndsLong | Mode::CountWrong => {
            batch.set_bodies(&lying_bodies(mode, batch.count()))
        }
        Mode::RowsUnsorted => {
            let values: Packed = ["a", "b"].into_iter().collect();
            batch.set_header("x", Column::Sparse(SparseValues { rows: vec![count.saturating_sub(1), 0], values }))
        }
        Mode::RowOutOfRange => batch.select(&[count]),
        Mode::RejectOutOfRange => batch.reject(&[Rejection::new(count, "no such row")]),
        Mode::HeaderNames => return header_names(batch),
        Mode::HeaderFlood => return header_flood(batch),
        Mode::FloodEvents => return flood(batch, 200_000),
        Mode::FloodBytes => {
            let grown = batch.map_bodies(|_, out| out.resize(out.len() + (9 << 20), b'x'));
            return grown.map_err(|misfit| Failure::fatal(format!("refused: {misfit}")));
        }
        _ => return Ok(()),
    };
    verdict(&format!("{mode:?}"), told)
}

/// Bodies whose `ends` are wrong in the way that the mode names.
pub fn lying_bodies(mode: Mode, count: usize) -> Packed {
    let mut packed: Packed = (0..count.max(2)).map(|_| "four").collect();
    match mode {
        Mode::EndsDecrease => packed.ends.swap(0, 1),
        Mode::EndsShort => packed.data.extend_from_slice(b"more"),
        Mode::EndsLong => packed.data.truncate(4),
        Mode::CountWrong => packed = (0..count + 1).map(|_| "four").collect(),
        _ => {}
    }
    packed
}

fn header_names(batch: &mut Batch) -> Result<(), Failure> {
    for name in ["", "line\nbreak", "\u{1b}[31mred", &"long".repeat(100_000)] {
        verdict(&format!("a header named {:?}", name.get(..20).unwrap_or(name)), {
            batch.set_header(name, Column::constant("x"))
        })?;
    }
    Ok(())
}

fn header_flood(batch: &mut Batch) -> Result<(), Failure> {
    for number in 0..1_000_000 {
        if let Err(misfit) = batch.set_header(&format!("header {number}"), Column::constant("x")) {
            return Err(Failure::reject(format!("refused: {misfit}")));
        }
    }
    Err(Failure::fatal("breach: a million headers were taken"))
}

fn flood(batch: &mut Batch, times: u32) -> Result<(), Failure> {
    let rows: Vec<u32> = (0..batch.count() as u32).flat_map(|row| std::iter::repeat_n(row, times as usize)).collect();
    batch.select(&rows).map_err(|misfit| Failure::fatal(format!("refused: {misfit}")))
}

/// The host must have answered an error.
fn verdict(what: &str, told: Result<(), Misfit>) -> Result<(), Failure> {
    match told {
        Err(misfit) => {
            log::info(format!("refused: {what}: {misfit}"));
            Ok(())
        }
        Ok(()) => Err(Failure::fatal(format!("breach: {what} was taken"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_lie_is_one() {
        for mode in [Mode::EndsDecrease, Mode::EndsShort, Mode::EndsLong, Mode::CountWrong] {
            assert!(lying_bodies(mode, 3).fits(3).is_err(), "{mode:?}");
        }
    }

    #[test]
    fn a_batch_refuses_every_lie_and_stays_as_it_was() {
        let modes = [Mode::EndsDecrease, Mode::EndsLong, Mode::CountWrong, Mode::RowsUnsorted, Mode::RowOutOfRange];
        for mode in modes.into_iter().chain([Mode::EndsShort, Mode::RejectOutOfRange]) {
            let mut batch = Batch::from_bodies(["a", "b"]);
            assert_eq!(about(mode, &mut batch), Ok(()), "{mode:?}");
            assert_eq!((batch.count(), batch.header_names().len()), (2, 0));
        }
    }
}
