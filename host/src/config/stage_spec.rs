//! What every stage's table says, whatever its kind.

use super::pipeline::{Grants, Limits, Pipeline, RetryPolicy, StageConfig, StageName};
use crate::plugin::{PluginKind, PluginOrigin};

/// A stage as far as its plugin goes: all that a swap can change of it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct StageSpec<'p> {
    pub plugin: &'p PluginOrigin,
    pub config: &'p StageConfig,
    pub grants: &'p Grants,
    pub limits: Limits,
    pub retry: RetryPolicy,
}

impl Pipeline {
    /// The stage of this kind and name.
    pub fn stage(&self, kind: PluginKind, name: &StageName) -> Option<StageSpec<'_>> {
        macro_rules! stage {
            ($spec:expr) => {
                StageSpec {
                    plugin: &$spec.plugin,
                    config: &$spec.config,
                    grants: &$spec.grants,
                    limits: $spec.limits,
                    retry: $spec.retry,
                }
            };
        }
        match kind {
            PluginKind::Source => self.sources.get(name).map(|spec| stage!(spec)),
            PluginKind::Interceptor => self.interceptors.get(name).map(|spec| stage!(spec)),
            PluginKind::Sink => self.sinks.get(name).map(|spec| stage!(spec)),
        }
    }
}
