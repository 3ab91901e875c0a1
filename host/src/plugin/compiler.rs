//! Compiling in a process of its own, so that a file made to keep a compiler busy costs a child process and nothing else.
//!
//! A thread that compiles can neither be stopped nor be kept from taking memory; a process can. The child is this same binary, which
//! begins by bounding itself: it may use so much memory, has low priority, and ends by itself should its parent be gone.
//!
//! ```text
//! standard input:   the component, to its end
//! standard output:  0, then machine code as wasmtime serializes it
//!                   1, then the reason for which the component is refused, as text
//! ```

use std::ffi::OsString;
use std::io::{Read, Write};
use std::path::PathBuf;
use std::process::{Child, ChildStdin, ChildStdout, Command, ExitCode, Stdio};
use std::sync::Arc;
use std::time::Duration;

use rustix::process::{Resource, Rlimit, getrlimit, nice, setrlimit};

use super::compile::{MAX_FILE_BYTES, Source};
use super::engine::settings;

/// The program that compiles, and what it may take for it.
#[derive(Debug, Clone)]
pub struct Compiler {
    pub program: PathBuf,
    /// The arguments that make it call [`serve`].
    pub arguments: Vec<OsString>,
    /// Limit: compiling one plugin. The largest known, Python with its interpreter, takes some ten seconds on one core.
    pub deadline: Duration,
    /// Limit: memory of the child. The largest known plugins need a quarter of it.
    pub memory_bytes: u64,
}

/// Limit: machine code, which is held in memory here. It is some three times as large as what it was made of.
const MAX_CODE_BYTES: u64 = 256 << 20;
/// Limit: what a child's panic says.
const MAX_WORDS_BYTES: u64 = 1000;
/// How much lower than its parent's the child's priority is: batches go on while it computes.
const NICE: i32 = 10;
/// How long after its deadline a child whose parent has not ended it ends itself.
const ORPHANED_AFTER: Duration = Duration::from_secs(5);

/// The answers' first byte.
const COMPILED: u8 = 0;
const REFUSED: u8 = 1;

/// Why there is no machine code.
#[derive(Debug)]
pub enum NotCompiled {
    /// The compiler's words about the component.
    Refused(String),
    TimedOut,
    /// The child ended without an answer.
    Died(String),
    /// The machine's fault: no process could be started.
    Start(std::io::Error),
}

impl Compiler {
    pub const DEADLINE: Duration = Duration::from_secs(60);
    pub const MEMORY_BYTES: u64 = 2 << 30;

    pub fn new(program: PathBuf, arguments: Vec<OsString>) -> Self {
        Self { program, arguments, deadline: Self::DEADLINE, memory_bytes: Self::MEMORY_BYTES }
    }

    /// Compiles in a child process.
    ///
    /// Cancel: the child is killed.
    ///
    /// # Errors
    /// When the component is refused, or takes more time or memory than it may.
    pub async fn compile(&self, source: Arc<Source>) -> Result<Vec<u8>, NotCompiled> {
        let (mut child, input, output) = self.start().map_err(NotCompiled::Start)?;
        let talking = tokio::task::spawn_blocking(move || talk(input, output, source.bytes()));
        let answer = match tokio::time::timeout(self.deadline, talking).await {
            Err(_) => return Err(NotCompiled::TimedOut),
            Ok(answer) => answer.expect("talking to a child does not panic"),
        };
        match answer {
            Some(answer) => answer,
            None => Err(NotCompiled::Died(self.epitaph(&mut child))),
        }
    }

    fn start(&self) -> std::io::Result<(Running, ChildStdin, ChildStdout)> {
        let mut command = Command::new(&self.program);
        command.args(&self.arguments);
        command.arg(self.deadline.as_millis().to_string()).arg(self.memory_bytes.to_string());
        // The child computes and nothing else: what the environment holds, secrets maybe, is none of its business.
        command.env_clear().stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn()?;
        let input = child.stdin.take().expect("it was piped");
        let output = child.stdout.take().expect("it was piped");
        Ok((Running(child), input, output))
    }

    /// How a child ended that has closed its output without an answer.
    fn epitaph(&self, child: &mut Running) -> String {
        use std::os::unix::process::ExitStatusExt as _;
        let mebibytes = self.memory_bytes >> 20;
        match child.0.wait() {
            // An allocation that fails aborts.
            Ok(status) if status.signal().is_some() => {
                format!("it needs more than {mebibytes} MiB of memory, or more stack than there is")
            }
            Ok(status) => format!("the compiler gave up ({status}): {}", last_words(child)),
            Err(error) => format!("the compiler is lost: {error}"),
        }
    }
}

/// What the child wrote to its standard error, on one line.
fn last_words(child: &mut Running) -> String {
    let mut words = Vec::new();
    if let Some(error) = child.0.stderr.take() {
        let _ = error.take(MAX_WORDS_BYTES).read_to_end(&mut words);
    }
    String::from_utf8_lossy(&words).split_whitespace().collect::<Vec<_>>().join(" ")
}

/// A child that does not outlive its owner.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        // Both fail only for a child that has been waited for.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Hands the component over and reads the answer; nothing when the child dies on the way, or answers what no child of ours does.
fn talk(mut input: ChildStdin, output: ChildStdout, component: &[u8]) -> Option<Result<Vec<u8>, NotCompiled>> {
    input.write_all(component).ok()?;
    drop(input);
    let mut output = output.take(MAX_CODE_BYTES + 1);
    let mut kind = [0];
    output.read_exact(&mut kind).ok()?;
    let mut answer = Vec::new();
    output.read_to_end(&mut answer).ok()?;
    match kind[0] {
        COMPILED if answer.len() as u64 >= MAX_CODE_BYTES => {
            let detail = format!("its machine code is larger than {} MiB", MAX_CODE_BYTES >> 20);
            Some(Err(NotCompiled::Died(detail)))
        }
        COMPILED => Some(Ok(answer)),
        REFUSED => Some(Err(NotCompiled::Refused(String::from_utf8_lossy(&answer).into_owned()))),
        _ => None,
    }
}

/// The child's whole life. `deadline` and `memory_bytes` are its parent's.
pub fn serve(deadline: Duration, memory_bytes: u64) -> ExitCode {
    if let Err(error) = confine(deadline, memory_bytes) {
        return answered(REFUSED, format!("the compiler cannot bound itself: {error}").as_bytes());
    }
    let mut component = Vec::new();
    if std::io::stdin().lock().take(MAX_FILE_BYTES).read_to_end(&mut component).is_err() {
        return ExitCode::FAILURE;
    }
    let compiled = wasmtime::Engine::new(&settings()).and_then(|engine| engine.precompile_component(&component));
    match compiled {
        Ok(code) => answered(COMPILED, &code),
        Err(error) => answered(REFUSED, error.root_cause().to_string().as_bytes()),
    }
}

fn confine(deadline: Duration, memory_bytes: u64) -> std::io::Result<()> {
    let lower = |resource, most: u64| {
        let hard = getrlimit(resource).maximum.map_or(most, |hard| hard.min(most));
        setrlimit(resource, Rlimit { current: Some(hard), maximum: Some(hard) })
    };
    // Not the address space: threads reserve of that what they never use.
    lower(Resource::Data, memory_bytes)?;
    lower(Resource::Core, 0)?;
    nice(NICE)?;
    std::thread::Builder::new().name("wasmflow-orphan".into()).spawn(move || {
        std::thread::sleep(deadline + ORPHANED_AFTER);
        std::process::exit(1);
    })?;
    Ok(())
}

fn answered(kind: u8, answer: &[u8]) -> ExitCode {
    let mut output = std::io::stdout().lock();
    let written = output.write_all(&[kind]).and_then(|()| output.write_all(answer)).and_then(|()| output.flush());
    if written.is_ok() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
