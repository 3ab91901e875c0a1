//! What a plugin may try against its host, for the hostile plugins of each kind.
//!
//! `tests/plugins/README.md` has the table of modes and of what the host must do. An act that must be denied says so in the
//! log, and is fatal with the word `breach` when it was allowed.

mod described;
mod grab;
mod leave;
mod lie;
mod reach;
mod shout;

use wasmflow_sdk::prelude::*;

pub use lie::lying_bodies;

/// What to do, when, and on which call.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(transform = described::act)]
pub struct Config {
    /// The act.
    pub mode: Mode,
    /// The call that it happens in; `work` is `poll`, `intercept` or `deliver`.
    #[serde(default)]
    pub call: Call,
    /// Only when a body contains this text.
    pub when_body_contains: Option<String>,
    /// So many calls of that kind go well before.
    #[serde(default)]
    pub after: u64,
    /// In so many calls of an instance, and not in those behind them.
    #[serde(default = "always")]
    pub times: u64,
    /// How many numbers the source brings.
    #[serde(default = "hundred")]
    pub total: u64,
    /// Whether the source waits for more when it has brought them, and does not end.
    #[serde(default)]
    pub endless: bool,
    /// Where `connect` and `resolve` go, as `host:port`.
    #[serde(default = "next_door")]
    pub target: String,
}

fn always() -> u64 {
    u64::MAX
}

fn next_door() -> String {
    "127.0.0.1:22".into()
}

fn hundred() -> u64 {
    100
}

/// When the act happens.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Call {
    Check,
    Open,
    #[default]
    Work,
    Flush,
    Acked,
    Close,
}

/// The act.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Mode {
    // Ends the instance.
    Trap,
    Panic,
    StackOverflow,
    OutOfBounds,
    Exit,
    // Takes too much.
    Loop,
    /// Computes in pieces shorter than the host looks, with naps between.
    LoopWithNaps,
    Sleep,
    MemoryFast,
    MemorySlow,
    Handles,
    EmptyItems,
    HugeList,
    // Says too much.
    LogStorm,
    LogHuge,
    LogControl,
    StdoutStorm,
    StderrStorm,
    LineWithoutEnd,
    EmptyWrites,
    // Reaches out.
    Files,
    Sockets,
    Environment,
    WallClock,
    Random,
    RandomFlood,
    // The same, one at a time, and the call fails with the words of the system.
    ReadFile,
    ListFolder,
    Connect,
    Listen,
    Resolve,
    Datagram,
    ReadVariable,
    /// Leaves the folder `granted`, which may be written.
    Escape,
    /// Changes the folder `granted`, which may only be read.
    Overwrite,
    /// Reads a file of `granted` again and again while its folder is exchanged.
    Race,
    // Lies about a batch.
    EndsDecrease,
    EndsShort,
    EndsLong,
    CountWrong,
    RowsUnsorted,
    RowOutOfRange,
    RejectOutOfRange,
    HeaderNames,
    HeaderFlood,
    FloodEvents,
    FloodBytes,
    // Lies in an answer; each only in the kind of plugin that can.
    MoreThanAsked,
    OversizeEvent,
    PositionFlood,
    KeptInFuture,
    PartlyOutOfRange,
    PartlyUnsorted,
    PartlyEmpty,
    HeldForEver,
    // Uses what it was not granted.
    Kafka,
}

/// Counts the calls, and acts when it is time.
pub struct Hostile {
    pub config: Config,
    calls: u64,
}

impl Hostile {
    /// Opens the plugin, and acts if `open` is the call.
    ///
    /// # Errors
    ///
    /// What the act comes to.
    pub fn open(config: Config) -> Result<Hostile, Failure> {
        let mut hostile = Hostile { config, calls: 0 };
        hostile.act(Call::Open)?;
        Ok(hostile)
    }

    /// For `check`, where there is no instance yet.
    pub fn check(config: &Config) {
        if config.call == Call::Check {
            // What a check cannot report it has no way to deny either: the log says it.
            let _ = perform(config);
        }
    }

    /// Acts if `call` is the call, its time has come, and nothing is asked of the bodies.
    ///
    /// # Errors
    ///
    /// What the act comes to.
    pub fn act(&mut self, call: Call) -> Result<(), Failure> {
        match self.is_due(call) && self.config.when_body_contains.is_none() {
            true => perform(&self.config),
            false => Ok(()),
        }
    }

    /// As [`act`](Self::act) in a call that is lent a batch, which can be lied about and looked at.
    ///
    /// # Errors
    ///
    /// What the act comes to.
    pub fn act_on(&mut self, batch: &mut Batch) -> Result<(), Failure> {
        if !self.is_due(Call::Work) {
            return Ok(());
        }
        if let Some(text) = &self.config.when_body_contains
            && !batch.bodies().iter().any(|body| String::from_utf8_lossy(body).contains(text))
        {
            return Ok(());
        }
        perform(&self.config)?;
        lie::about(self.config.mode, batch)
    }

    /// Whether this mode is asked for, in an answer that only this kind of plugin can give.
    pub fn lies(&self, mode: Mode) -> bool {
        self.config.mode == mode && self.is_time()
    }

    fn is_due(&mut self, call: Call) -> bool {
        if self.config.call != call {
            return false;
        }
        self.calls += 1;
        self.is_time()
    }

    fn is_time(&self) -> bool {
        self.calls.checked_sub(self.config.after).is_some_and(|call| (1..=self.config.times).contains(&call))
    }
}

/// The acts that need no batch.
fn perform(config: &Config) -> Result<(), Failure> {
    match config.mode {
        Mode::Trap => std::process::abort(),
        Mode::Panic => panic!("as told"),
        Mode::StackOverflow => drop(std::hint::black_box(descend(0))),
        Mode::OutOfBounds => read_far_away(),
        Mode::Exit => std::process::exit(0),
        Mode::Loop => loop {
            std::hint::black_box(());
        },
        Mode::LoopWithNaps => loop_with_naps(),
        Mode::Sleep => std::thread::sleep(std::time::Duration::from_secs(86_400)),
        Mode::MemoryFast => grab::memory(usize::MAX),
        Mode::MemorySlow => grab::memory(1 << 20),
        Mode::Handles => grab::handles(),
        Mode::EmptyItems => grab::empty_items(),
        Mode::HugeList => grab::huge_list(),
        Mode::LogStorm => shout::storm(|line| log::info(line)),
        Mode::StdoutStorm => shout::storm(|line| println!("{line}")),
        Mode::StderrStorm => shout::storm(|line| eprintln!("{line}")),
        Mode::LineWithoutEnd => shout::line_without_end(),
        Mode::EmptyWrites => shout::empty_writes(),
        Mode::LogHuge => shout::huge_line(),
        Mode::LogControl => shout::control(),
        Mode::Files => return grab::files(),
        Mode::Sockets => return grab::sockets(),
        Mode::Environment => return grab::environment(),
        Mode::WallClock => return grab::wall_clock(),
        Mode::Random => return grab::random(16),
        Mode::RandomFlood => return grab::random(1 << 20),
        Mode::ReadFile => return reach::read_file(),
        Mode::ListFolder => return reach::list_folder(),
        Mode::Connect => return reach::connect(&config.target),
        Mode::Listen => return reach::listen(),
        Mode::Resolve => return reach::resolve(&config.target),
        Mode::Datagram => return reach::datagram(),
        Mode::ReadVariable => return reach::read_variable(),
        Mode::Escape => return leave::escape(),
        Mode::Overwrite => return leave::overwrite(),
        Mode::Race => return leave::race(),
        _ => {}
    }
    Ok(())
}

/// Three milliseconds of computing, and as short a nap as there is, for ever.
fn loop_with_naps() {
    loop {
        let began = std::time::Instant::now();
        while began.elapsed() < std::time::Duration::from_millis(3) {
            std::hint::black_box(());
        }
        std::thread::sleep(std::time::Duration::from_micros(1));
    }
}

/// Deep enough for any stack; the addition behind the call keeps it from becoming a loop.
fn descend(depth: u64) -> u64 {
    let room = std::hint::black_box([depth; 64]);
    if depth == u64::MAX { 0 } else { descend(depth + 1) + room[7] }
}

/// Reads behind the end of the guest's memory.
fn read_far_away() {
    let far = std::hint::black_box(usize::MAX & !7) as *const u64;
    // SAFETY: none: in the sandbox the engine traps on it, and that is the test. Nothing calls it natively.
    std::hint::black_box(unsafe { far.read_volatile() });
}
