//! From a TOML file as written to a pipeline as trusted: `file` -> `check` -> `pipeline`.

pub mod pipeline;

pub use pipeline::{
    AckRule, AfterRetries, ChannelKind, ChannelName, ChannelSpec, ConnectionName, DeliveryPromise, DirGrant, Grants,
    HostPort, InterceptorSpec, KafkaConnection, Limits, Pipeline, PipelineName, RetryPolicy, SelectorSpec, SinkSpec,
    SourceSpec, StageConfig, StageName,
};
