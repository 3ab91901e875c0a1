//! The question asked of every disk a crash may leave: is everything acknowledged there, and nothing invented?

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use super::model::{Model, READERS, columns};
use crate::simulator::SimDisk;
use crate::{ChannelOptions, Frame, LogSet, ReadLimits, Recovered};

pub const ROOT: &str = "/state/channels";
pub const ALL: ReadLimits = ReadLimits { events: u64::MAX, bytes: u64::MAX };

/// What is wrong with an answer. A text, so that the tests of the tests can ask for it.
pub type Verdict<T> = Result<T, String>;

pub fn open(disk: &SimDisk, options: &[ChannelOptions]) -> Verdict<(LogSet, Recovered)> {
    LogSet::open_stepwise(Arc::new(disk.clone()), Path::new(ROOT), "test", options.to_vec())
        .map_err(|error| format!("it does not open: {error}"))
}

/// Opens what a crash left and compares it with the model.
pub fn check(disk: &SimDisk, options: &[ChannelOptions], model: &Model) -> Verdict<(LogSet, Recovered)> {
    let (logs, recovered) = open(disk, options)?;
    let last_puts = check_sources(&recovered, model)?;
    for (channel, reader) in READERS {
        // Not in this life's pipeline file.
        let Some(log) = logs.log(channel) else { continue };
        let mut reading = log.reader(reader).map_err(|error| error.to_string())?;
        let cursor = reading.next_sequence();
        let settled = model.readers.get(&(channel, reader)).map_or(0, |reader| reader.settled);
        if cursor > settled {
            return Err(format!("reader {channel}/{reader} is at {cursor}, but only {settled} was settled"));
        }
        let mut frames = Vec::new();
        loop {
            let more = reading.read(ALL).map_err(|error| format!("it cannot be read: {error}"))?;
            if more.is_empty() {
                break;
            }
            frames.extend(more);
        }
        check_frames(model, &last_puts, (channel, reader), &frames)?;
    }
    Ok((logs, recovered))
}

fn check_sources(recovered: &Recovered, model: &Model) -> Verdict<BTreeMap<Arc<str>, u64>> {
    let mut last_puts = BTreeMap::new();
    for source in &recovered.sources {
        last_puts.insert(source.name.clone(), source.last_put);
        let put = model.puts.iter().enumerate().find(|(_, put)| {
            put.source == &*source.name && put.number == source.last_put && put.number > 0 && !put.void
        });
        match put {
            Some((at, _)) if source.position != [("at".into(), at.to_string().into())] => {
                return Err(format!("`{}` stands at {:?} after put {}", source.name, source.position, source.last_put));
            }
            None if source.last_put > 0 => {
                return Err(format!("nobody made put {} of `{}`", source.last_put, source.name));
            }
            _ => {}
        }
    }
    for put in model.puts.iter().filter(|put| put.acked) {
        let last = last_puts.get(put.source).copied().unwrap_or(0);
        if put.number > last {
            return Err(format!("put {} of `{}` was acknowledged, and it ends at {last}", put.number, put.source));
        }
    }
    Ok(last_puts)
}

fn check_frames(
    model: &Model,
    last_puts: &BTreeMap<Arc<str>, u64>,
    (channel, reader): (&'static str, &'static str),
    frames: &[Frame],
) -> Verdict<()> {
    let expected = model.expected(channel, last_puts);
    let Some(skipped) = expected.len().checked_sub(frames.len()) else {
        return Err(format!("{channel}/{reader} gets {} frames, of {} there are", frames.len(), expected.len()));
    };
    let settled = model.readers.get(&(channel, reader)).map(|reader| &reader.settled_puts);
    for (at, events) in &expected[..skipped] {
        if *events > 0 && !settled.is_some_and(|settled| settled.contains(at)) {
            let put = &model.puts[*at];
            let got: Vec<_> =
                frames.iter().map(|frame| (&*frame.source, frame.put, frame.events, frame.first_sequence)).collect();
            let state = expected
                .iter()
                .map(|(at, events)| (&model.puts[*at], events))
                .map(|(put, events)| (put.source, put.number, *events, put.acked));
            return Err(format!(
                "{channel}/{reader} never gets {at}, put {} of `{}`; it got {got:?} of {:?}",
                put.number,
                put.source,
                state.collect::<Vec<_>>()
            ));
        }
    }
    let mut next = 0;
    for ((at, events), frame) in expected[skipped..].iter().zip(frames) {
        let put = &model.puts[*at];
        if (put.source, put.number, *events) != (&*frame.source, frame.put, frame.events) {
            let got = (&*frame.source, frame.put, frame.events);
            return Err(format!("{channel}/{reader} gets {got:?} for {:?}", (put.source, put.number, events)));
        }
        if frame.columns != columns(*at) {
            return Err(format!("{channel}/{reader} gets other bytes for put number {at}"));
        }
        if frame.first_sequence < next {
            return Err(format!("{channel}/{reader}: sequence {} comes twice", frame.first_sequence));
        }
        next = frame.next_sequence();
        if model.sequences.get(&(channel, *at)).is_some_and(|known| *known != frame.first_sequence) {
            return Err(format!("{channel}/{reader}: put number {at} has another sequence than before"));
        }
    }
    Ok(())
}

/// What a log may do about damage.
#[derive(Debug, PartialEq, Eq)]
pub enum Answer {
    /// It gives everything that was acknowledged.
    Whole,
    /// It says that it cannot.
    Refused(String),
}

/// Opens a disk on which something was changed behind the log's back. With `on_corruption = "fail"` everything must be there,
/// or the log must refuse: at the start, or when a reader comes to the place.
pub fn check_damaged(disk: &SimDisk, options: &[ChannelOptions], model: &Model) -> Verdict<Answer> {
    let opened = LogSet::open_stepwise(Arc::new(disk.clone()), Path::new(ROOT), "test", options.to_vec());
    let (logs, recovered) = match opened {
        Ok(opened) => opened,
        Err(error) => return Ok(Answer::Refused(error.to_string())),
    };
    for (channel, reader) in READERS {
        let mut reading = logs.log(channel).unwrap().reader(reader).map_err(|error| error.to_string())?;
        loop {
            match reading.read(ALL) {
                Ok(frames) if frames.is_empty() => break,
                Ok(_) => {}
                Err(error) => {
                    drop(reading);
                    logs.forget();
                    return Ok(Answer::Refused(error.to_string()));
                }
            }
        }
    }
    drop(recovered);
    logs.forget();
    check(disk, options, model).map(|(logs, _)| {
        logs.forget();
        Answer::Whole
    })
}

/// The same with `on_corruption = "skip"`: what comes is right and in order, and what does not come is counted.
pub fn check_skipping(disk: &SimDisk, options: &[ChannelOptions], model: &Model) -> Verdict<()> {
    let mut options = options.to_vec();
    options.iter_mut().for_each(|options| options.on_corruption = crate::OnCorruption::Skip);
    let opened = LogSet::open_stepwise(Arc::new(disk.clone()), Path::new(ROOT), "test", options);
    // Whose folder it is, and what stands in a foreign file, is not for a policy to pass over.
    let Ok((logs, recovered)) = opened else { return Ok(()) };
    for (channel, reader) in READERS {
        let log = logs.log(channel).unwrap();
        let before = log.status().skipped_events;
        let mut reading = log.reader(reader).map_err(|error| error.to_string())?;
        let mut frames = Vec::new();
        loop {
            let more = reading.read(ALL).map_err(|error| format!("it stops: {error}"))?;
            if more.is_empty() {
                break;
            }
            frames.extend(more);
        }
        let noted = recovered.notes.iter().any(|note| !note.is_normal());
        let lost = log.status().skipped_events - before;
        check_subset(model, (channel, reader), &frames, lost, noted)?;
    }
    logs.forget();
    Ok(())
}

fn check_subset(
    model: &Model,
    (channel, reader): (&'static str, &'static str),
    frames: &[Frame],
    lost: u64,
    noted: bool,
) -> Verdict<()> {
    let all: BTreeMap<Arc<str>, u64> = model.puts.iter().map(|put| (Arc::from(put.source), u64::MAX)).collect();
    let expected = model.expected(channel, &all);
    let settled = &model.readers[&(channel, reader)].settled_puts;
    let mut frames = frames.iter().peekable();
    let mut missing = 0;
    for (at, events) in expected {
        let put = &model.puts[at];
        match frames.next_if(|frame| (&*frame.source, frame.put) == (put.source, put.number)) {
            Some(frame) if frame.columns != columns(at) || frame.events != events => {
                return Err(format!("{channel}/{reader} gets other bytes for put number {at}"));
            }
            Some(_) => {}
            None if put.acked && !settled.contains(&at) => missing += u64::from(events),
            None => {}
        }
    }
    if let Some(frame) = frames.next() {
        return Err(format!("{channel}/{reader} gets put {} of `{}` out of turn", frame.put, frame.source));
    }
    if missing > lost && !noted {
        return Err(format!("{channel}/{reader} misses {missing} events, and {lost} are counted"));
    }
    Ok(())
}
