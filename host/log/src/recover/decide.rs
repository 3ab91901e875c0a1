//! Which puts are whole: looked at over all channels of a folder together.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::{ChannelScan, SEQUENCE_JUMP};
use crate::error::Damage;
use crate::format::header::Lossy;
use crate::put::ChannelId;
use crate::report::{Note, RecoveredSource};
use crate::track::{SourceTrack, Void};

/// What becomes of a put that is not known to be complete.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Verdict {
    Whole,
    Void,
}

/// Decides over every put that any channel has pending, and moves the tracks accordingly.
///
/// - Every channel that the put names, and that still exists, has it: it is whole. It is synced by now.
/// - One has not, and nothing says that the put was ever complete: it is void, in all of them, and so are the puts of the
///   source behind it, since their positions build on it. The source brings them again.
/// - One has not, although the put was complete: what that channel had was lost. That is damage there, or the window that its
///   `sync` allows; elsewhere the put stays.
pub fn decide(scans: &mut [ChannelScan]) -> Vec<RecoveredSource> {
    let names: BTreeSet<Arc<str>> = scans.iter().flat_map(|scan| scan.tracks.keys().cloned()).collect();
    names.into_iter().map(|name| decide_source(scans, &name)).collect()
}

fn decide_source(scans: &mut [ChannelScan], name: &Arc<str>) -> RecoveredSource {
    let tracks = |scans: &[ChannelScan]| -> Vec<SourceTrack> {
        scans.iter().filter_map(|scan| scan.tracks.get(name).cloned()).collect()
    };
    let before = tracks(scans);
    let evidence = before.iter().map(|track| track.evidence.max(track.complete)).max().unwrap_or(0);
    let last_used = before.iter().map(|track| track.last_put).max().unwrap_or(0);
    let pending: BTreeMap<u64, Vec<ChannelId>> =
        before.iter().flat_map(|track| &track.pending).map(|put| (put.put, put.channels.clone())).collect();
    // Crash: a recovery that was stopped half-way has taken puts back in some channels; it goes on in the others.
    let taken_back = |put: u64| before.iter().any(|track| track.void.0 < put && put <= track.void.1);
    let mut verdicts = BTreeMap::new();
    let mut voiding = false;
    for (put, channels) in pending {
        let missing = missing(scans, name, put, &channels);
        if taken_back(put) {
            voiding = true;
        } else if put <= evidence {
            missing.into_iter().for_each(|at| lost(&mut scans[at], name, put));
        } else {
            voiding |= !missing.is_empty();
        }
        verdicts.insert(put, if voiding { Verdict::Void } else { Verdict::Whole });
    }
    let first_void = verdicts.iter().find(|(_, verdict)| **verdict == Verdict::Void).map(|(put, _)| *put);
    for scan in scans.iter_mut() {
        settle(scan, name, &verdicts);
        if let (Some(first), Some(track)) = (first_void, scan.tracks.get_mut(name)) {
            track.void = (first - 1, last_used);
            track.last_put = last_used;
        }
    }
    recovered(scans, name, last_used)
}

/// The channels of a put that exist and have it not.
fn missing(scans: &[ChannelScan], name: &Arc<str>, put: u64, channels: &[ChannelId]) -> Vec<usize> {
    let lacks = |scan: &ChannelScan| {
        scan.id.is_some_and(|id| channels.contains(&id)) && !scan.tracks.get(name).is_some_and(|track| track.has(put))
    };
    scans.iter().enumerate().filter(|(_, scan)| lacks(scan)).map(|(at, _)| at).collect()
}

fn lost(scan: &mut ChannelScan, source: &Arc<str>, put: u64) {
    if scan.lossy != Lossy::Nothing {
        let window = |note: &mut Note| match note {
            Note::WindowLost { source: of, puts, .. } if of == source => {
                *puts += 1;
                true
            }
            _ => false,
        };
        if !scan.notes.iter_mut().any(window) {
            scan.notes.push(Note::WindowLost { channel: scan.name.clone(), source: source.clone(), puts: 1 });
        }
    } else if scan.damage.is_empty() && !scan.cuts_instead() {
        let end = scan.end();
        let path = scan.segments.last().map_or(&scan.path, |last| &last.path).clone();
        scan.damage.push(Damage {
            channel: scan.name.clone(),
            path,
            from: end.offset,
            to: end.offset,
            sequence: end.sequence,
            lost_events: None,
            detail: format!("put {put} of source `{source}`, which was acknowledged, is not there"),
        });
        scan.next_sequence += SEQUENCE_JUMP;
    }
}

fn settle(scan: &mut ChannelScan, name: &Arc<str>, verdicts: &BTreeMap<u64, Verdict>) {
    let Some(track) = scan.tracks.get_mut(name) else { return };
    let (mut puts, mut events) = (Vec::new(), 0);
    let voids = &mut scan.voids;
    track.pending.retain(|pending| {
        let void = verdicts.get(&pending.put) == Some(&Verdict::Void);
        if void {
            voids.insert(pending.frame, Void { sequence: pending.sequence, events: pending.events });
            puts.push(pending.put);
            events += u64::from(pending.events);
        }
        !void
    });
    if let Some(last) = track.pending.back().map(|pending| pending.put) {
        track.complete_up_to(last);
    }
    if !puts.is_empty() {
        scan.notes.push(Note::Voided { channel: scan.name.clone(), source: name.clone(), puts, events });
    }
}

fn recovered(scans: &[ChannelScan], name: &Arc<str>, last_used: u64) -> RecoveredSource {
    let tracks = scans.iter().filter_map(|scan| scan.tracks.get(name));
    let best = tracks.max_by_key(|track| track.complete).cloned().unwrap_or_default();
    let of_best = |scan: &&ChannelScan| scan.id.is_some_and(|id| best.channels.contains(&id));
    RecoveredSource {
        name: name.clone(),
        last_put: best.complete,
        last_used,
        position: best.position.into_iter().collect(),
        channels: scans.iter().filter(of_best).map(|scan| scan.name.clone()).collect(),
    }
}
