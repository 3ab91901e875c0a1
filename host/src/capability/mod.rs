//! What a plugin may import: one file for each interface, and the state of a store that they share.

pub mod clock;
pub mod columns;
pub mod console;
pub mod events;
pub mod files;
pub mod granted;
pub mod handed;
pub mod kafka;
pub mod log;
pub mod net;
mod read_now;
pub mod stdio;
pub mod waited;
pub mod wasi;

use std::collections::HashMap;
use std::sync::Arc;

use wasmtime::component::{HasSelf, Linker, ResourceTable};
use wasmtime_wasi::WasiCtx;

use crate::kafka::StageKafka;
use crate::plugin::bindings::wasmflow::plugin as wit;
use crate::plugin::limits::Memory;
use crate::plugin::{PluginKind, StageContext};

use clock::Clock;
use console::Console;
use events::Batches;
use granted::Granted;
use log::StageLog;
use net::NetRules;
use stdio::{LogOrigin, LogStream, PrintStream};
pub use waited::Waited;
use wasi::Output;

/// Limit: handles of one instance: batches, streams, sockets, open files and folders. The library's own is a million.
const MAX_HANDLES: usize = 1024;

/// The export that is being called: some host functions work only inside some.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Export {
    /// Instantiation, `describe`, `check`, `open`, `close` and `acked`.
    Other,
    Poll,
    Intercept,
    Deliver,
    Flush,
}

/// Where an instance's standard output goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Printing {
    /// To the process's: a sink at work.
    Console,
    Log,
}

/// What a store holds for its one instance.
pub struct State {
    pub table: ResourceTable,
    pub wasi: WasiCtx,
    pub batches: Batches,
    pub memory: Memory,
    pub clock: Clock,
    pub log: Arc<StageLog>,
    pub granted: Arc<Granted>,
    pub net: Arc<NetRules>,
    /// The names being looked up, by their streams.
    pub lookups: HashMap<u32, String>,
    pub output: Output,
    pub error: LogStream,
    pub export: Export,
    pub kafka: Option<Arc<StageKafka>>,
}

impl State {
    /// # Errors
    /// When a granted folder cannot be opened, or a sink has no standard output to print to.
    pub fn new(stage: &StageContext, printing: Printing) -> Result<Self, String> {
        let log = StageLog::new(stage);
        let name = format!("{}/{}", stage.pipeline, stage.stage);
        let granted = Granted::new(stage.grants.clone(), name, stage.log.clone(), stage.counters.clone());
        let granted = Arc::new(granted);
        let net = NetRules::new(granted.clone());
        let error = LogStream::new(log.clone(), LogOrigin::Error);
        let output = match printing {
            Printing::Console => {
                let console = Console::standard_output().map_err(|error| format!("no standard output: {error}"))?;
                Output::Print(PrintStream::new(console))
            }
            Printing::Log => Output::Log(LogStream::new(log.clone(), LogOrigin::Output)),
        };
        let mut table = ResourceTable::new();
        table.set_max_capacity(MAX_HANDLES);
        Ok(Self {
            table,
            wasi: wasi::context(&granted, net.clone(), &output, &error)?,
            batches: Batches::new(stage.limits.memory_bytes),
            memory: Memory::new(stage.limits.memory_bytes),
            clock: Clock::default(),
            log,
            granted,
            net,
            lookups: HashMap::new(),
            output,
            error,
            export: Export::Other,
            kafka: stage.kafka.clone(),
        })
    }
}

impl events::Host for State {
    fn batches(&mut self) -> (&mut ResourceTable, &mut Batches) {
        (&mut self.table, &mut self.batches)
    }

    fn misfit(&mut self, why: &str) {
        self.log.misfit(why);
    }
}

impl wit::errors::Host for State {}
impl wit::positions::Host for State {}

/// Offers everything that a plugin of this kind may import.
pub fn add_to_linker(linker: &mut Linker<State>, kind: PluginKind) -> wasmtime::Result<()> {
    wasi::add_to_linker(linker)?;
    events::add_to_linker::<State, HasSelf<State>>(linker, |state| state)?;
    wit::errors::add_to_linker::<State, HasSelf<State>>(linker, |state| state)?;
    wit::positions::add_to_linker::<State, HasSelf<State>>(linker, |state| state)?;
    wit::log::add_to_linker::<State, HasSelf<State>>(linker, |state| state)?;
    if kind != PluginKind::Interceptor {
        wit::kafka::add_to_linker::<State, HasSelf<State>>(linker, |state| state)?;
    }
    Ok(())
}
