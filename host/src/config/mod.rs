//! From a TOML file as written to a pipeline as trusted: `file` -> `check` -> `pipeline`.
//!
//! `load` walks the whole way and reports every problem of every file at once, each with its place and a remedy.

pub mod pipeline;

mod channel;
mod check;
mod diagnostic;
mod exactly_once;
mod file;
mod grants;
mod kafka_table;
mod load;
mod plugin_config;
mod plugins;
mod quantity;
mod read;
mod report;
mod road;
mod running;
mod schema;
mod schema_check;
mod secret;
mod stage;
mod stage_spec;
mod state_dir;
mod syntax;
mod text;
mod variables;

pub use diagnostic::{Diagnostic, Severity, nearest_hint};
pub use grants::{needs_line, toml_line as grants_line};
#[cfg(test)]
pub use load::pipeline_of;
pub use load::{LoadedFile, load, locate, parse_text, place};
pub use pipeline::{
    AckRule, AfterRetries, ChannelKind, ChannelName, ChannelSpec, ConnectionName, DeliveryPromise, DirGrant, Grants,
    HostPort, InterceptorSpec, KafkaConnection, Limits, Pipeline, PipelineName, RetryPolicy, SelectorSpec, SinkSpec,
    SourceSpec, StageConfig, StageName, TransactionSpec,
};
pub use plugins::LoadedPlugins;
pub use read::Environment;
pub use report::{Colour, FileReport};
pub use running::{lacking_grants, misfits, stage_config, stage_grants};
pub use schema::pipeline_schema;
pub use secret::{keep_secret, mask};
pub use stage_spec::StageSpec;
pub use text::FileText;
