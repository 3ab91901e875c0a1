//! The `config` table of the stage.

use wasmflow_sdk::prelude::*;

/// The host's own greatest event; a line beyond it could never be put.
const GREATEST_LINE_BYTES: u64 = 16 << 20;

/// Listens on a TCP port; one line is one event.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Where to listen: a name or an address, and a port, as in `127.0.0.1:44444`. Every address of the name is listened on.
    pub bind: String,

    /// The longest line, without its line end. A longer one is answered `FAILED: …`, and the connection is closed.
    #[serde(default = "max_line_bytes")]
    pub max_line_bytes: ByteSize,

    /// Answers `OK` for each event once it is settled.
    #[serde(default = "yes")]
    pub ack_every_event: bool,

    /// Makes an event of an unfinished last line when the client closes; it is dropped otherwise.
    #[serde(default)]
    pub keep_partial: bool,
}

fn max_line_bytes() -> ByteSize {
    ByteSize(64 << 10)
}

fn yes() -> bool {
    true
}

impl Config {
    /// What the schema cannot say.
    pub fn problems(&self) -> Vec<Problem> {
        let mut problems = Vec::new();
        let port = self.bind.rsplit_once(':').map(|(host, port)| (host, port.parse::<u16>()));
        if !matches!(port, Some((host, Ok(_))) if !host.is_empty()) {
            problems.push(Problem::new("/bind", "expected a name or an address, and a port, as in `127.0.0.1:44444`"));
        }
        if self.max_line_bytes.0 == 0 || self.max_line_bytes.0 > GREATEST_LINE_BYTES {
            problems.push(Problem::new("/max_line_bytes", "must be from `1B` to `16MiB`, the host's greatest event"));
        }
        problems
    }

    pub fn needs(&self) -> Vec<Need> {
        vec![Need::new("listen", &self.bind)]
    }
}
