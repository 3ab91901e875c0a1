//! The engine that all plugins of a process share: its settings are what the sandbox rests on.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::thread::JoinHandle;

use wasmtime::Config;
use wasmtime::component::Linker;

use super::cache::Cache;
use super::compile::{self, Source};
use super::compiler::Compiler;
use super::cpu::{TICK, TICKS};
use super::standard::{self, Standard};
use super::{Plugin, PluginError, PluginKind, PluginOrigin};
use crate::capability::{self, State};

/// Frames read for the text of a trap: a Rust panic has a dozen of its own before the guest's begin.
const BACKTRACE_FRAMES: usize = 40;

#[derive(Debug, Clone, Default)]
pub struct EngineOptions {
    /// Where compiled machine code is kept between starts. Nothing: it is compiled at each.
    pub cache_dir: Option<PathBuf>,
    /// The program that compiles files, as a child process. Nothing: they are compiled in this process, without a bound.
    pub compiler: Option<Compiler>,
}

/// Compiles plugins and makes their instances. A clone is the same engine.
#[derive(Clone)]
pub struct Engine(Arc<Shared>);

struct Shared {
    wasm: wasmtime::Engine,
    linkers: [Linker<State>; 3],
    cache: Option<Cache>,
    compiler: Option<Compiler>,
    /// Plugins in use, by digest and kind of origin, so that two stages share one compilation.
    loaded: Mutex<HashMap<String, Weak<Plugin>>>,
    _ticker: Ticker,
}

impl Engine {
    /// # Errors
    /// When the machine cannot run compiled WebAssembly, or no thread can be started.
    pub fn new(options: EngineOptions) -> Result<Self, PluginError> {
        let failed = |error: wasmtime::Error| PluginError::Engine(format!("{error:#}"));
        let wasm = wasmtime::Engine::new(&settings()).map_err(failed)?;
        let linker = |kind| {
            let mut linker = Linker::new(&wasm);
            capability::add_to_linker(&mut linker, kind).map(|()| linker).map_err(failed)
        };
        let [source, interceptor, sink] = PluginKind::ALL.map(linker);
        let linkers = [source?, interceptor?, sink?];
        let cache = options.cache_dir.and_then(|dir| Cache::open(&wasm, dir));
        let _ticker = Ticker::start(wasm.clone()).map_err(|error| PluginError::Engine(error.to_string()))?;
        let compiler = options.compiler;
        Ok(Self(Arc::new(Shared { wasm, linkers, cache, compiler, loaded: Mutex::default(), _ticker })))
    }

    /// Reads a plugin, compiles it or finds it compiled, and asks it to describe itself.
    ///
    /// Cancel: the compilation of a file is ended; that of a standard plugin goes on to its end on its own thread.
    ///
    /// # Errors
    /// When the bytes are not a plugin of this version.
    pub async fn load(&self, origin: &PluginOrigin) -> Result<Arc<Plugin>, PluginError> {
        self.load_source(origin, Source::read(origin).await?).await
    }

    /// As [`load`](Self::load), of bytes that are at hand; `origin` is where they once came from.
    ///
    /// # Errors
    /// When the bytes are not a plugin of this version.
    pub async fn load_bytes(&self, origin: &PluginOrigin, bytes: Vec<u8>) -> Result<Arc<Plugin>, PluginError> {
        self.load_source(origin, Source::of(bytes)).await
    }

    async fn load_source(&self, origin: &PluginOrigin, source: Source) -> Result<Arc<Plugin>, PluginError> {
        let key = format!("{} {origin}", source.digest());
        if let Some(plugin) = self.loaded().get(&key).and_then(Weak::upgrade) {
            return Ok(plugin);
        }
        let plugin = Arc::new(compile::load(self, origin, source).await?);
        let mut loaded = self.loaded();
        loaded.retain(|_, plugin| plugin.strong_count() > 0);
        loaded.insert(key, Arc::downgrade(&plugin));
        Ok(plugin)
    }

    /// The plugins of this kind that are embedded in the binary, by name.
    pub fn standard(kind: PluginKind) -> impl Iterator<Item = &'static str> {
        standard::ALL.iter().filter(move |plugin| plugin.kind == kind).map(|plugin: &Standard| plugin.name)
    }

    pub(super) fn wasm(&self) -> &wasmtime::Engine {
        &self.0.wasm
    }

    pub(super) fn cache(&self) -> Option<&Cache> {
        self.0.cache.as_ref()
    }

    pub(super) fn compiler(&self) -> Option<&Compiler> {
        self.0.compiler.as_ref()
    }

    pub(super) fn linker(&self, kind: PluginKind) -> &Linker<State> {
        &self.0.linkers[kind as usize]
    }

    fn loaded(&self) -> std::sync::MutexGuard<'_, HashMap<String, Weak<Plugin>>> {
        self.0.loaded.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl std::fmt::Debug for Engine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Engine").field("cache", &self.0.cache).finish_non_exhaustive()
    }
}

/// What guests are compiled with, and which parts of WebAssembly they may use.
pub(super) fn settings() -> Config {
    let mut config = Config::new();
    // The async component ABI costs 1 µs a call and has had the worst advisories; waiting is done by suspending the fiber.
    config.concurrency_support(false);
    config.epoch_interruption(true);
    config.parallel_compilation(true);
    config.wasm_backtrace_max_frames(std::num::NonZeroUsize::new(BACKTRACE_FRAMES));
    // Proposals that no plugin needs: what is off cannot be attacked. SIMD stays, the standard plugins use it.
    config.wasm_gc(false).wasm_function_references(false).wasm_exceptions(false);
    config.wasm_memory64(false).wasm_multi_memory(false);
    config.wasm_threads(false).wasm_relaxed_simd(false);
    config
}

/// Moves the epoch on a thread of its own: a runtime whose every worker runs a looping guest would not.
struct Ticker {
    stop: Option<Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Ticker {
    fn start(wasm: wasmtime::Engine) -> std::io::Result<Self> {
        let (stop, stopped) = channel();
        let thread = crate::thread::spawn("wasmflow-epoch", move || {
            let mut next = TICK;
            while stopped.recv_timeout(next) == Err(RecvTimeoutError::Timeout) {
                next = TICKS.add();
                wasm.increment_epoch();
            }
        })?;
        Ok(Self { stop: Some(stop), thread: Some(thread) })
    }
}

impl Drop for Ticker {
    fn drop(&mut self) {
        self.stop.take();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}
