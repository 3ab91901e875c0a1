//! The threads: one that writes for each channel, and one that does the upkeep for all.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex, RwLock};

use crate::channel::Channel;
use crate::channel::append::Turn;
use crate::channel::upkeep::Due;
use crate::error::Poisoned;
use crate::options::Sync;
use crate::set::Channels;

/// How often a full disk is asked again.
const SPACE_WAIT: Duration = Duration::from_millis(200);
/// How often cursors are looked at while they move: an upper bound for how long `cursor_lag` can be overrun.
const UPKEEP_WAIT: Duration = Duration::from_millis(50);
/// How often they are looked at while nothing moves: segments grow old all the same. Whatever moves first says so.
const IDLE_WAIT: Duration = Duration::from_secs(1);

/// The thread that writes one channel.
pub struct Writer {
    channel: Arc<Channel>,
    thread: JoinHandle<()>,
}

impl Writer {
    pub fn start(channel: Arc<Channel>) -> Self {
        let of = channel.clone();
        let thread = std::thread::Builder::new()
            .name(format!("log {}", channel.options.name))
            .spawn(move || {
                if catch_unwind(AssertUnwindSafe(|| write(&of))).is_err() {
                    // The panic was reported where it happened. Whoever waits must be told.
                    of.give_up();
                }
            })
            .expect("the system gives a thread to a process that has just started");
        Self { channel, thread }
    }

    pub fn ask_to_stop(&self) {
        self.channel.queue.lock().closing = true;
        self.channel.wake.notify_all();
    }

    /// Returns once all that was put is written, or failed.
    pub fn stop(self) {
        self.ask_to_stop();
        self.thread.join().expect("a panic of the writer was caught");
    }
}

/// What the writer waits for.
#[derive(Debug, Clone, Copy)]
enum Wait {
    /// Puts.
    Work,
    /// Puts, but not longer than this: something is to be synced then.
    WorkFor(Duration),
    /// This long.
    Pause(Duration),
}

fn write(channel: &Channel) {
    let mut wait = Wait::Work;
    loop {
        let closing = wait_for_work(channel, wait);
        wait = match channel.turn(sync_due(channel)) {
            Turn::Idle | Turn::Poisoned(_) if closing => return,
            Turn::NoSpace if closing => {
                // Nobody was told of what waits, so nothing is lost by failing it.
                let error = std::io::ErrorKind::StorageFull.into();
                channel.poison("write what waited for space before the stop", error);
                Wait::Work
            }
            Turn::NoSpace => Wait::Pause(SPACE_WAIT),
            Turn::Wrote | Turn::Idle | Turn::Poisoned(_) => until_sync(channel).map_or(Wait::Work, Wait::WorkFor),
        };
    }
}

/// Says whether it is the end.
fn wait_for_work(channel: &Channel, wait: Wait) -> bool {
    let until = match wait {
        Wait::Work => None,
        Wait::WorkFor(time) | Wait::Pause(time) => Some(Instant::now() + time),
    };
    let mut queue = channel.queue.lock();
    loop {
        let work = !matches!(wait, Wait::Pause(_)) && !queue.puts.is_empty();
        if work || queue.closing || std::mem::take(&mut queue.poked) {
            return queue.closing;
        }
        match until {
            Some(until) if channel.wake.wait_until(&mut queue, until).timed_out() => return queue.closing,
            Some(_) => {}
            None => channel.wake.wait(&mut queue),
        }
    }
}

fn until_sync(channel: &Channel) -> Option<Duration> {
    let Sync::Interval(interval) = channel.options.sync else { return None };
    let since = channel.core.lock().unsynced_since?;
    Some((since + interval).saturating_duration_since(Instant::now()))
}

fn sync_due(channel: &Channel) -> bool {
    until_sync(channel).is_some_and(|wait| wait.is_zero())
}

/// The thread that does the upkeep of all channels.
pub struct Keeper {
    signal: Arc<Signal>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Default)]
struct Signal {
    asked: Mutex<Asked>,
    wake: Condvar,
}

#[derive(Default)]
struct Asked {
    upkeep: bool,
    stop: bool,
}

impl Keeper {
    pub fn new() -> Self {
        Self { signal: Arc::default(), thread: None }
    }

    /// Asks for upkeep now.
    pub fn caller(&self) -> Arc<dyn Fn() + Send + std::marker::Sync> {
        let signal = self.signal.clone();
        Arc::new(move || {
            signal.asked.lock().upkeep = true;
            signal.wake.notify_one();
        })
    }

    pub fn start(&mut self, channels: Arc<RwLock<Channels>>) {
        let signal = self.signal.clone();
        let thread = std::thread::Builder::new().name("log upkeep".into()).spawn(move || keep(&signal, &channels));
        self.thread = Some(thread.expect("the system gives a thread to a process that has just started"));
    }

    pub fn stop(&mut self) {
        self.signal.asked.lock().stop = true;
        self.signal.wake.notify_one();
        if let Some(thread) = self.thread.take() {
            thread.join().expect("a panic of upkeep was caught");
        }
    }
}

fn keep(signal: &Signal, channels: &RwLock<Channels>) {
    let mut wait = UPKEEP_WAIT;
    loop {
        {
            let mut asked = signal.asked.lock();
            if !asked.stop && !asked.upkeep {
                signal.wake.wait_for(&mut asked, wait);
            }
            if asked.stop {
                return;
            }
            asked.upkeep = false;
        }
        let open: Vec<Arc<Channel>> = channels.read().values().cloned().collect();
        wait = IDLE_WAIT;
        for channel in open {
            // A failure has poisoned the channel, and its writer tells.
            if catch_unwind(AssertUnwindSafe(|| channel.upkeep(Due::Lagging))).is_err() {
                channel.give_up();
            }
            if channel.state.lock().has_moved() {
                wait = UPKEEP_WAIT;
            }
        }
    }
}

impl Channel {
    /// Writes all there is, syncs it, writes the cursors, and cuts the segment to what is used: the mark of a clean end.
    pub fn close(&self) -> Result<(), Poisoned> {
        loop {
            match self.turn(true) {
                Turn::Wrote => {}
                Turn::Idle => break,
                Turn::NoSpace => {
                    return Err(self.poison("write what waited for space", std::io::ErrorKind::StorageFull.into()));
                }
                Turn::Poisoned(poisoned) => return Err(poisoned),
            }
        }
        self.upkeep(Due::Moved)?;
        let mut core = self.core.lock();
        self.seal(&mut core)?;
        let cut = core.file.set_len(core.end.offset).and_then(|()| core.file.sync_all());
        cut.map_err(|error| self.poison(format!("close segment {}", core.number), error))
    }
}
