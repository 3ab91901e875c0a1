//! A plugin that is compiled and known to fit: what it says of itself, and the instances it is asked for.

use std::sync::Arc;
use std::time::Duration;

use wasmtime::component::Component;

use super::bindings::exports::wasmflow::plugin::descriptor;
use super::engine::Engine;
use super::instance::{Instance, within};
use super::world::{Exports, World};
use super::{
    CallError, CheckError, Description, InterceptorInstance, Need, PluginError, PluginKind, PluginOrigin, Problem,
    SinkInstance, SourceInstance, StageContext, TrapKind,
};
use crate::capability::events::OutputBound;
use crate::capability::{Export, Printing};
use crate::config::{Grants, Limits};

/// Limit: a plugin's name, which becomes a label of metrics.
const MAX_NAME_BYTES: usize = 64;
/// Limit: `describe` and `check`, which compute and nothing else.
const ASKING_DEADLINE: Duration = Duration::from_secs(10);

/// A plugin, ready to be instantiated.
pub struct Plugin {
    /// Keeps the epoch moving while there is anything to run.
    _engine: Engine,
    origin: PluginOrigin,
    digest: String,
    size_bytes: usize,
    description: Description,
    world: World,
}

impl Plugin {
    pub(super) async fn new(
        engine: Engine,
        origin: PluginOrigin,
        component: Component,
        digest: String,
        size_bytes: usize,
    ) -> Result<Self, PluginError> {
        let world = World::check(&engine, &origin, &component)?;
        let description = describe(&world, &origin).await?;
        Ok(Self { _engine: engine, origin, digest, size_bytes, description, world })
    }

    pub fn kind(&self) -> PluginKind {
        self.world.kind()
    }

    /// # Errors
    /// When it is of another kind.
    pub fn expect_kind(&self, expected: PluginKind) -> Result<(), PluginError> {
        match self.kind() {
            found if found == expected => Ok(()),
            found => Err(PluginError::WrongKind { plugin: self.origin.clone(), found, expected }),
        }
    }

    pub fn origin(&self) -> &PluginOrigin {
        &self.origin
    }

    pub fn description(&self) -> &Description {
        &self.description
    }

    /// SHA-256 of the component, in hexadecimal.
    pub fn digest(&self) -> &str {
        &self.digest
    }

    /// The world it is made for, with its version.
    pub fn world(&self) -> String {
        self.world.name()
    }

    /// The interfaces it imports, with their versions.
    pub fn imports(&self) -> &[String] {
        &self.world.imports
    }

    /// Size of the component, before compilation.
    pub fn size_bytes(&self) -> usize {
        self.size_bytes
    }

    /// Asks the plugin what it has against a configuration, and what it will need. Secrets must be placeholders.
    ///
    /// # Errors
    /// Its problems, or its end.
    pub async fn check(&self, config_json: &str) -> Result<Vec<Need>, CheckError> {
        let call = async {
            let mut instance = asked(&self.world, &self.origin).await?;
            let mut live = instance.begin(Export::Other, OutputBound::for_input(0, 0))?;
            let (store, guest, cpu) = live.parts();
            let answer = within(cpu, ASKING_DEADLINE, guest.call_check(store, config_json)).await;
            instance.end(live, answer.map(Ok))
        };
        let needs = call.await.map_err(|error| self.failed("check", error))?;
        let need = |need: descriptor::Need| Need { grant: need.grant, value: need.value };
        let problem = |problem: descriptor::Problem| Problem { path: problem.path, message: problem.message };
        needs
            .map(|needs| needs.into_iter().map(need).collect())
            .map_err(|problems| CheckError::Problems(problems.into_iter().map(problem).collect()))
    }

    /// Makes an instance of a source; only its initialization runs.
    ///
    /// # Errors
    /// A retry when a granted folder cannot be opened, or its end.
    pub async fn source(&self, stage: &StageContext) -> Result<SourceInstance, CallError> {
        let Exports::Source(exports) = &self.world.exports else { return Err(self.wrong_kind(PluginKind::Source)) };
        let load = |store: &mut _, instance: &_| exports.load(store, instance);
        let instance = Instance::new(&self.world.pre, stage, Printing::Log, load).await?;
        Ok(SourceInstance::new(instance, stage.max_event_bytes))
    }

    /// Makes an instance of an interceptor; only its initialization runs.
    ///
    /// # Errors
    /// A retry when a granted folder cannot be opened, or its end.
    pub async fn interceptor(&self, stage: &StageContext) -> Result<InterceptorInstance, CallError> {
        let Exports::Interceptor(exports) = &self.world.exports else {
            return Err(self.wrong_kind(PluginKind::Interceptor));
        };
        let load = |store: &mut _, instance: &_| exports.load(store, instance);
        let instance = Instance::new(&self.world.pre, stage, Printing::Log, load).await?;
        Ok(InterceptorInstance::new(instance, stage.max_event_bytes))
    }

    /// Makes an instance of a sink, which prints to the process's standard output; only its initialization runs.
    ///
    /// # Errors
    /// A retry when a granted folder cannot be opened, or its end.
    pub async fn sink(&self, stage: &StageContext) -> Result<SinkInstance, CallError> {
        let Exports::Sink(exports) = &self.world.exports else { return Err(self.wrong_kind(PluginKind::Sink)) };
        let load = |store: &mut _, instance: &_| exports.load(store, instance);
        Ok(SinkInstance::new(Instance::new(&self.world.pre, stage, Printing::Console, load).await?))
    }

    fn wrong_kind(&self, expected: PluginKind) -> CallError {
        let text = format!("`{}` is a {}, not a {expected}", self.origin, self.kind());
        CallError::Trap { kind: TrapKind::Contract, text }
    }

    fn failed(&self, call: &'static str, error: CallError) -> PluginError {
        failed(&self.origin, call, error)
    }
}

impl std::fmt::Debug for Plugin {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mut plugin = f.debug_struct("Plugin");
        plugin.field("origin", &self.origin).field("digest", &self.digest).finish_non_exhaustive()
    }
}

/// An instance that is only asked about itself.
type Asked = Instance<descriptor::Guest>;

/// Makes an instance without any grant, for `describe` or `check`.
async fn asked(world: &World, origin: &PluginOrigin) -> Result<Asked, CallError> {
    let stage = StageContext {
        pipeline: "none".into(),
        stage: origin.to_string().into(),
        plugin_kind: world.kind(),
        grants: Grants::default(),
        limits: Limits { call: ASKING_DEADLINE, ..Limits::default() },
        max_event_bytes: 0,
        counters: Arc::default(),
        kafka: None,
        log: Arc::default(),
        pace: Arc::default(),
        bundles: None,
    };
    let load = |store: &mut _, instance: &_| world.descriptor.load(store, instance);
    Instance::new(&world.pre, &stage, Printing::Log, load).await
}

async fn describe(world: &World, origin: &PluginOrigin) -> Result<Description, PluginError> {
    let call = async {
        let mut instance = asked(world, origin).await?;
        let mut live = instance.begin(Export::Other, OutputBound::for_input(0, 0))?;
        let (store, guest, cpu) = live.parts();
        let answer = within(cpu, ASKING_DEADLINE, guest.call_describe(store)).await;
        instance.end(live, answer.map(Ok))
    };
    let described = call.await.map_err(|error| failed(origin, "describe", error))?;
    checked(described).map_err(|detail| PluginError::Description { plugin: origin.clone(), detail })
}

fn checked(described: descriptor::Description) -> Result<Description, String> {
    let descriptor::Description { name, version, about, config_schema, traits, tick_ms } = described;
    let fits = |character: char| character.is_ascii_alphanumeric() || "-_.".contains(character);
    if name.is_empty() || name.len() > MAX_NAME_BYTES || !name.chars().all(fits) {
        let shown: String = name.chars().take(MAX_NAME_BYTES).collect();
        return Err(format!("`{}` is no name (letters, digits, `-`, `_`, `.`)", shown.escape_debug()));
    }
    if tick_ms == Some(0) {
        return Err("`tick-ms` is 0".into());
    }
    let config_schema = match config_schema.is_empty() {
        true => None,
        false => Some(
            serde_json::from_str(&config_schema).map_err(|error| format!("its config schema is not JSON: {error}"))?,
        ),
    };
    Ok(Description {
        name,
        version,
        about,
        config_schema,
        replays: traits.contains(descriptor::Traits::REPLAYS),
        only_kafka: traits.contains(descriptor::Traits::ONLY_KAFKA),
        tick: tick_ms.map(|ms| Duration::from_millis(ms.into())),
    })
}

fn failed(origin: &PluginOrigin, call: &'static str, error: CallError) -> PluginError {
    let (kind, text) = match error {
        CallError::Trap { kind, text } => (kind, text),
        CallError::Failure(failure) => (TrapKind::Trap, failure.to_string()),
    };
    PluginError::Call { plugin: origin.clone(), call, kind, text }
}
