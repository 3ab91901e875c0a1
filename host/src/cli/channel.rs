//! `wasmflow channel`: what is in the file channels of a stopped pipeline. Nothing here deletes an event.

use std::io::Write as _;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use clap::{Args, Subcommand, ValueEnum};
use serde_json::{Map, Value as Json, json};
use wasmflow::agent::logs::FOLDER;
use wasmflow::channel::file::events_of;
use wasmflow::config::{Colour, Severity, locate};
use wasmflow::event::Event;
use wasmflow_log::tools::{self, InspectedChannel, Place};
use wasmflow_log::{Disk, Frame, Storage};

use super::{FAILED, INVALID, environment, failed, logs, pretty, print};

#[derive(Subcommand)]
pub enum ChannelCommand {
    /// Show sizes, readers, positions, the oldest and newest event, and damage that can be seen at a glance
    #[command(after_help = INSPECT_EXAMPLES)]
    Inspect(Inspect),
    /// Read everything in a channel, and list what is damaged
    #[command(after_help = VERIFY_EXAMPLES)]
    Verify(Verify),
    /// Write the events of a channel to standard output
    #[command(after_help = EXPORT_EXAMPLES)]
    Export(Export),
    /// Move a sink to another place in its channel: back, to have events again, or forward, to leave some out
    #[command(after_help = SEEK_EXAMPLES)]
    Seek(Seek),
}

const INSPECT_EXAMPLES: &str = "\
Examples:
  wasmflow channel inspect pipeline.toml
  wasmflow channel inspect ~/.local/state/wasmflow/students events --json

The pipeline must not be running: its state folder is locked, and the error names the process that holds it.";

const VERIFY_EXAMPLES: &str = "\
Example:
  wasmflow channel verify pipeline.toml events

Exit codes: 0 nothing is damaged; 1 something is.
What next, where something is damaged: `channel export` saves what can be read; then `on_corruption = \"skip\"` in the pipeline
file goes on behind the damage and counts what is lost, or `channel seek` moves a sink past it.";

const EXPORT_EXAMPLES: &str = "\
Examples:
  wasmflow channel export pipeline.toml events > events.jsonl
  wasmflow channel export pipeline.toml events --format raw --from 2026-11-21T06:00:00Z
  wasmflow channel export pipeline.toml events --from 1000 --count 10

One JSON object a line: `sequence`, `time_ms`, `source`, `headers`, `body`; what is not UTF-8 stands under
`headers_base64` or `body_base64`. Raw: the bodies, each with a newline behind it. Nothing is taken out of the channel.";

const SEEK_EXAMPLES: &str = "\
Examples:
  wasmflow channel seek pipeline.toml events console --to oldest --dry-run
  wasmflow channel seek pipeline.toml events console --to 4711
  wasmflow channel seek pipeline.toml events console --to 2026-11-21T06:00:00Z
  wasmflow channel seek pipeline.toml events console --to tail

Events stay in the channel as long as its slowest sink needs them, and longer with `retain`: that is how far back a sink can go.";

/// A pipeline file, or a state folder.
#[derive(Args)]
struct Target {
    /// The pipeline file, or its state folder
    #[arg(value_name = "PIPELINE")]
    pipeline: PathBuf,
}

#[derive(Args)]
pub struct Inspect {
    #[command(flatten)]
    target: Target,
    /// Only this channel
    channel: Option<String>,
    /// Print one JSON document instead of text
    #[arg(long)]
    json: bool,
}

#[derive(Args)]
pub struct Verify {
    #[command(flatten)]
    target: Target,
    channel: String,
    /// Print one JSON document instead of text
    #[arg(long)]
    json: bool,
}

#[derive(Args)]
pub struct Export {
    #[command(flatten)]
    target: Target,
    channel: String,
    #[arg(long, value_enum, default_value_t = Format::Json)]
    format: Format,
    /// Where to begin: a sequence number, a time as in `2026-11-21T06:00:00Z`, `oldest` or `tail`
    #[arg(long, value_name = "PLACE", default_value = "oldest", value_parser = place)]
    from: Place,
    /// At most this many events
    #[arg(long, value_name = "EVENTS")]
    count: Option<u64>,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Format {
    Json,
    Raw,
}

#[derive(Args)]
pub struct Seek {
    #[command(flatten)]
    target: Target,
    channel: String,
    /// The sink whose place is moved
    sink: String,
    /// A sequence number, a time as in `2026-11-21T06:00:00Z`, `oldest` or `tail`
    #[arg(long, value_name = "PLACE", value_parser = place)]
    to: Place,
    /// Say what would be done, and do nothing
    #[arg(long)]
    dry_run: bool,
}

fn place(text: &str) -> Result<Place, String> {
    match text {
        "oldest" => return Ok(Place::Oldest),
        "tail" => return Ok(Place::Tail),
        _ => {}
    }
    if let Ok(sequence) = text.parse() {
        return Ok(Place::Sequence(sequence));
    }
    let time = humantime::parse_rfc3339_weak(text).map_err(|_| {
        "expected a sequence number, a time in UTC as in `2026-11-21T06:00:00Z`, `oldest` or `tail`".to_owned()
    })?;
    let since = time.duration_since(std::time::UNIX_EPOCH).map_err(|_| "a time before 1970".to_owned())?;
    Ok(Place::Time(since.as_millis() as u64))
}

/// Why a command has come to its end early: the exit code, with everything said.
type Ended = Result<ExitCode, ExitCode>;

impl ChannelCommand {
    pub fn execute(self) -> ExitCode {
        logs::start_quiet();
        let ended = match self {
            Self::Inspect(inspect) => inspect.run(),
            Self::Verify(verify) => verify.run(),
            Self::Export(export) => export.run(),
            Self::Seek(seek) => seek.run(),
        };
        ended.unwrap_or_else(|code| code)
    }
}

impl Target {
    /// The folder of the channels.
    fn root(&self) -> Result<PathBuf, ExitCode> {
        let state_dir = match self.pipeline.is_dir() {
            true => self.pipeline.clone(),
            false => locate(&self.pipeline, &environment).map(|pipeline| pipeline.state_dir).map_err(|report| {
                eprint!("{}", report.text(Severity::Warning, Colour::for_stderr()));
                ExitCode::from(INVALID)
            })?,
        };
        // The folder of the channels itself is as good.
        let root = state_dir.join(FOLDER);
        let root = if root.is_dir() || !state_dir.ends_with(FOLDER) { root } else { state_dir };
        if !root.is_dir() {
            eprintln!("error: there are no file channels in `{}`", root.parent().unwrap_or(Path::new("")).display());
            return Err(ExitCode::from(FAILED));
        }
        Ok(root)
    }
}

fn disk() -> Arc<dyn Storage> {
    Arc::new(Disk)
}

fn said(error: tools::ToolError) -> ExitCode {
    failed(&error)
}

impl Inspect {
    fn run(self) -> Ended {
        let root = self.target.root()?;
        let found = tools::inspect(&disk(), &root).map_err(said)?;
        let channels: Vec<_> =
            found.channels.iter().filter(|one| self.channel.as_deref().is_none_or(|name| name == &*one.name)).collect();
        if let (Some(channel), true) = (&self.channel, channels.is_empty()) {
            return Err(said(tools::ToolError::NoSuchChannel { channel: channel.clone(), root }));
        }
        let notes: Vec<String> = found.notes.iter().map(ToString::to_string).collect();
        if self.json {
            let channels: Vec<Json> = channels.iter().map(|channel| channel_json(channel)).collect();
            let sources: Vec<Json> = found.sources.iter().map(source_json).collect();
            return Ok(print(&pretty(&json!({
                "pipeline": found.pipeline, "format": found.format,
                "channels": channels, "sources": sources, "notes": notes,
            }))));
        }
        let mut text = format!("pipeline {} (format {})\n", found.pipeline, found.format);
        channels.iter().for_each(|channel| text += &channel_text(channel));
        for source in &found.sources {
            let channels = source.channels.join(", ");
            text += &format!("\nsource {}: put {} in {channels}\n", source.name, source.last_put);
            for (key, value) in &source.position {
                text += &format!("  {} = {}\n", shown(key), shown(value));
            }
        }
        notes.iter().for_each(|note| text += &format!("\nat the next start: {note}\n"));
        Ok(print(&text))
    }
}

fn channel_text(channel: &InspectedChannel) -> String {
    let mut text =
        format!("\nchannel {}\n  id        {}\n  folder    {}\n", channel.name, channel.id, channel.path.display());
    let events = channel.next_sequence - channel.oldest_sequence;
    text += &format!("  size      {} bytes in {} segments\n", channel.bytes, channel.segments);
    text += &format!("  events    {events}: {} up to {}\n", channel.oldest_sequence, channel.next_sequence);
    text += &format!("  put       {} up to {}\n", time(channel.oldest_time_ms), time(channel.newest_time_ms));
    for reader in &channel.readers {
        let behind = channel.next_sequence.saturating_sub(reader.cursor);
        text += &format!("  reader    {} at {}, {behind} events behind\n", reader.name, reader.cursor);
    }
    for damage in &channel.damage {
        text += &format!("  damage    {damage}\n");
    }
    text
}

fn channel_json(channel: &InspectedChannel) -> Json {
    let readers: Vec<Json> = channel
        .readers
        .iter()
        .map(|reader| {
            let behind = channel.next_sequence.saturating_sub(reader.cursor);
            json!({ "name": &*reader.name, "sequence": reader.cursor, "epoch": reader.epoch, "behind_events": behind })
        })
        .collect();
    json!({
        "name": &*channel.name,
        "id": channel.id.to_string(),
        "folder": channel.path.to_string_lossy(),
        "segments": channel.segments,
        "bytes": channel.bytes,
        "oldest_sequence": channel.oldest_sequence,
        "next_sequence": channel.next_sequence,
        "oldest_time_ms": channel.oldest_time_ms,
        "newest_time_ms": channel.newest_time_ms,
        "readers": readers,
        "damage": channel.damage.iter().map(ToString::to_string).collect::<Vec<_>>(),
    })
}

fn source_json(source: &wasmflow_log::RecoveredSource) -> Json {
    let parts: Vec<Json> = source.position.iter().map(|(key, value)| json!([shown(key), shown(value)])).collect();
    let channels: Vec<&str> = source.channels.iter().map(|channel| &**channel).collect();
    json!({ "name": &*source.name, "last_put": source.last_put, "position": parts, "channels": channels })
}

/// Bytes as text where they are, with everything that could play with a terminal escaped.
fn shown(bytes: &[u8]) -> String {
    match std::str::from_utf8(bytes) {
        Ok(text) => text.escape_debug().to_string(),
        Err(_) => format!("base64:{}", BASE64.encode(bytes)),
    }
}

fn time(ms: Option<u64>) -> String {
    let time = ms.and_then(|ms| std::time::UNIX_EPOCH.checked_add(std::time::Duration::from_millis(ms)));
    time.map_or("never".into(), |time| humantime::format_rfc3339_millis(time).to_string())
}

impl Verify {
    fn run(self) -> Ended {
        let root = self.target.root()?;
        let found = tools::verify(&disk(), &root, &self.channel).map_err(said)?;
        let damage: Vec<String> = found.damage.iter().map(ToString::to_string).collect();
        let printed = match self.json {
            true => print(&pretty(&json!({
                "channel": self.channel, "puts": found.frames, "events": found.events, "bytes": found.bytes, "damage": damage,
            }))),
            false => {
                let (events, puts, bytes) = (found.events, found.frames, found.bytes);
                let mut text = format!("channel {}: {events} events in {puts} puts, {bytes} bytes\n", self.channel);
                text += if damage.is_empty() { "nothing is damaged\n" } else { "" };
                damage.iter().for_each(|damage| text += &format!("damaged: {damage}\n"));
                print(&text)
            }
        };
        if damage.is_empty() { Ok(printed) } else { Err(ExitCode::from(FAILED)) }
    }
}

impl Export {
    fn run(self) -> Ended {
        let root = self.target.root()?;
        let mut left = self.count.unwrap_or(u64::MAX);
        let mut stdout = std::io::BufWriter::new(std::io::stdout().lock());
        let mut problem = None;
        let from = match self.from {
            Place::Sequence(sequence) => sequence,
            _ => 0,
        };
        let mut each = |frame: Frame| match write_frame(&mut stdout, self.format, frame, from, &mut left) {
            Ok(()) if left > 0 => ControlFlow::Continue(()),
            Ok(()) => ControlFlow::Break(()),
            Err(error) => {
                problem = Some(error);
                ControlFlow::Break(())
            }
        };
        let damage = tools::export(&disk(), &root, &self.channel, self.from, &mut each).map_err(said)?;
        let flushed = stdout.flush();
        // A reader that has gone away (`| head`) has seen what it wanted.
        match problem.or_else(|| flushed.err().map(Into::into)) {
            Some(error) if is_broken_pipe(&error) => return Ok(ExitCode::SUCCESS),
            Some(error) => {
                eprintln!("error: {error:#}");
                return Err(ExitCode::from(FAILED));
            }
            None => {}
        }
        damage.iter().for_each(|damage| eprintln!("warning: left out: {damage}"));
        if damage.is_empty() { Ok(ExitCode::SUCCESS) } else { Err(ExitCode::from(FAILED)) }
    }
}

fn is_broken_pipe(error: &anyhow::Error) -> bool {
    error.downcast_ref::<std::io::Error>().is_some_and(|error| error.kind() == std::io::ErrorKind::BrokenPipe)
}

fn write_frame(
    out: &mut impl std::io::Write,
    format: Format,
    frame: Frame,
    from: u64,
    left: &mut u64,
) -> anyhow::Result<()> {
    let (first, time_ms, source) = (frame.first_sequence, frame.time_ms, frame.source.clone());
    let batch = events_of(frame)?;
    for (sequence, event) in (first..).zip(batch.events()).filter(|(sequence, _)| *sequence >= from) {
        if *left == 0 {
            break;
        }
        *left -= 1;
        match format {
            Format::Raw => out.write_all(&event.body)?,
            Format::Json => write!(out, "{}", event_json(sequence, time_ms, &source, &event))?,
        }
        out.write_all(b"\n")?;
    }
    Ok(())
}

fn event_json(sequence: u64, time_ms: u64, source: &str, event: &Event) -> Json {
    let (mut headers, mut binary) = (Map::new(), Map::new());
    for (name, value) in &event.headers {
        match std::str::from_utf8(value) {
            Ok(text) => headers.insert(name.to_string(), text.into()),
            Err(_) => binary.insert(name.to_string(), BASE64.encode(value).into()),
        };
    }
    let mut object = json!({ "sequence": sequence, "time_ms": time_ms, "source": source, "headers": headers });
    if !binary.is_empty() {
        object["headers_base64"] = binary.into();
    }
    match std::str::from_utf8(&event.body) {
        Ok(text) => object["body"] = text.into(),
        Err(_) => object["body_base64"] = BASE64.encode(&event.body).into(),
    }
    object
}

impl Seek {
    fn run(self) -> Ended {
        let root = self.target.root()?;
        let sought = tools::seek(&disk(), &root, &self.channel, &self.sink, self.to, self.dry_run).map_err(said)?;
        let does = if self.dry_run { "would go" } else { "goes" };
        let (from, to) = (sought.from, sought.to);
        let consequence = match to.cmp(&from) {
            std::cmp::Ordering::Less => format!("{} events come again", from - to),
            std::cmp::Ordering::Greater => format!("{} events are left out", to - from),
            std::cmp::Ordering::Equal => "nothing changes".into(),
        };
        let (sink, channel) = (&self.sink, &self.channel);
        Ok(print(&format!(
            "sink {sink} {does} from {from} to {to} in channel {channel}, which holds {} up to {}: {consequence}\n",
            sought.oldest, sought.next
        )))
    }
}
