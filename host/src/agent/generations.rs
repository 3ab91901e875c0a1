//! The part of a change that swaps can do: each changed stage becomes another generation, or none does.

use std::sync::Arc;

use tracing::warn;

use super::build::Plan;
use super::running::Running;
use crate::config::{StageName, StageSpec};
use crate::control::StageControl;
use crate::plugin::PluginKind;
use crate::reload::ReloadError;
use crate::reload::difference::Difference;
use crate::swap::{StageBounds, SwapRequest, Trigger, WaitFor};

impl Running {
    /// Swaps every stage that is another generation now. A source or a sink that has ended is started anew instead.
    ///
    /// # Errors
    /// The first swap that was refused; those done before are taken back.
    pub(super) async fn swap_all(&mut self, plan: Plan<'_>, difference: &mut Difference) -> Result<(), ReloadError> {
        let mut done: Vec<Arc<StageControl>> = Vec::new();
        for (name, kind) in difference.swapped.clone() {
            if !self.is_used(&name, kind) {
                match kind {
                    PluginKind::Source => _ = difference.sources.restarted.insert(name),
                    PluginKind::Sink => _ = difference.sinks.restarted.insert(name),
                    PluginKind::Interceptor => {}
                }
                continue;
            }
            let Some(stage) = self.workshop.control.stage(name.as_str()) else { continue };
            let signal = self.stopper.signal();
            let swapped = tokio::select! {
                swapped = stage.swap(self.control.engine(), request(plan, &name, kind)) => swapped,
                () = signal.stopping() => return Err(ReloadError::Stopping),
            };
            if let Err(error) = swapped {
                self.take_back(done).await;
                return Err(ReloadError::failed(format!("swap {kind} `{name}`"), error));
            }
            done.push(stage);
        }
        Ok(())
    }

    async fn take_back(&mut self, done: Vec<Arc<StageControl>>) {
        for stage in done.into_iter().rev() {
            if let Err(error) = stage.rollback(self.control.engine()).await {
                warn!(stage = %stage.name(), %error, "not taken back; it serves as the new file says");
            }
        }
    }

    /// Whether a runner that runs calls the stage.
    fn is_used(&self, name: &StageName, kind: PluginKind) -> bool {
        if kind != PluginKind::Interceptor {
            return self.tasks.has(name.as_str());
        }
        let sources = self.pipeline.sources.iter().map(|(name, spec)| (name, &spec.interceptors));
        let sinks = self.pipeline.sinks.iter().map(|(name, spec)| (name, &spec.interceptors));
        sources.chain(sinks).any(|(runner, list)| list.contains(name) && self.tasks.has(runner.as_str()))
    }
}

fn request(plan: Plan<'_>, name: &StageName, kind: PluginKind) -> SwapRequest {
    let spec = plan.pipeline.stage(kind, name);
    let StageSpec { plugin, config, grants, limits, retry } = spec.expect("only what is in both files is swapped");
    SwapRequest {
        loaded: Some(plan.plugins.of(kind, plugin).clone()),
        config: Some(config.clone()),
        bounds: Some(StageBounds { grants: grants.clone(), limits, retry }),
        wait_for: WaitFor::Switch,
        trigger: Trigger::File,
        ..SwapRequest::default()
    }
}
