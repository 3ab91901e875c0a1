//! Whether a component is a plugin, of which kind, and whether it imports only what a plugin is offered.

use wasmtime::component::{Component, InstancePre};

use super::bindings::exports::wasmflow::plugin::{descriptor, interceptor, sink, source};
use super::engine::Engine;
use super::{PluginError, PluginKind, PluginOrigin};
use crate::capability::State;

const PACKAGE: &str = "wasmflow:plugin/";
const VERSION: &str = "@0.1.0";
/// What WASI 0.2 is made of here. `wasi:http` is a capability of its own, and not offered.
const WASI_PACKAGES: [&str; 6] = ["cli", "clocks", "filesystem", "io", "random", "sockets"];

/// A component that is known to be a plugin, ready to be instantiated.
pub struct World {
    pub imports: Vec<String>,
    pub pre: InstancePre<State>,
    pub descriptor: descriptor::GuestIndices,
    pub exports: Exports,
}

/// Where the functions of a plugin's kind are found in its instances.
pub enum Exports {
    Source(source::GuestIndices),
    Interceptor(interceptor::GuestIndices),
    Sink(sink::GuestIndices),
}

impl World {
    /// # Errors
    /// When something is missing, or imported that no plugin of the kind is given.
    pub fn check(engine: &Engine, origin: &PluginOrigin, component: &Component) -> Result<Self, PluginError> {
        let wrong = |missing: String| PluginError::WrongWorld { plugin: origin.clone(), missing };
        let ty = component.component_type();
        let exports: Vec<&str> = ty.exports(engine.wasm()).map(|(name, _)| name).collect();
        let imports: Vec<String> = ty.imports(engine.wasm()).map(|(name, _)| name.to_owned()).collect();
        let kind = kind_of(&exports).map_err(wrong)?;
        if let Some(import) = imports.iter().find(|import| !is_offered(import, kind)) {
            return Err(PluginError::Import { plugin: origin.clone(), kind, import: import.clone() });
        }
        let unfit = |error: wasmtime::Error| wrong(format!("{error:#}"));
        let pre = engine.linker(kind).instantiate_pre(component).map_err(unfit)?;
        let exports = match kind {
            PluginKind::Source => Exports::Source(source::GuestIndices::new(&pre).map_err(unfit)?),
            PluginKind::Interceptor => Exports::Interceptor(interceptor::GuestIndices::new(&pre).map_err(unfit)?),
            PluginKind::Sink => Exports::Sink(sink::GuestIndices::new(&pre).map_err(unfit)?),
        };
        let descriptor = descriptor::GuestIndices::new(&pre).map_err(unfit)?;
        Ok(Self { imports, pre, descriptor, exports })
    }

    /// As in `wasmflow:plugin/sink-plugin@0.1.0`.
    pub fn name(&self) -> String {
        format!("{PACKAGE}{}-plugin{VERSION}", self.kind().interface())
    }

    pub fn kind(&self) -> PluginKind {
        match self.exports {
            Exports::Source(_) => PluginKind::Source,
            Exports::Interceptor(_) => PluginKind::Interceptor,
            Exports::Sink(_) => PluginKind::Sink,
        }
    }
}

/// The kind, by the one interface that tells it; else what is missing.
fn kind_of(exports: &[&str]) -> Result<PluginKind, String> {
    let has = |interface: &str| exports.contains(&format!("{PACKAGE}{interface}{VERSION}").as_str());
    let kinds: Vec<PluginKind> = PluginKind::ALL.into_iter().filter(|kind| has(kind.interface())).collect();
    match kinds[..] {
        [] => {
            Err(format!("it exports none of `{PACKAGE}source`, `interceptor` and `sink` {VERSION}{}", instead(exports)))
        }
        [kind] if has("descriptor") => Ok(kind),
        [kind] => Err(format!("it is a {kind}, but does not export `{PACKAGE}descriptor{VERSION}`")),
        _ => Err("it exports several of source, interceptor and sink; a plugin is of one kind".into()),
    }
}

fn instead(exports: &[&str]) -> String {
    match exports {
        [] => "; it exports nothing".into(),
        _ => format!("; it exports `{}`", exports.join("`, `")),
    }
}

fn is_offered(import: &str, kind: PluginKind) -> bool {
    if let Some(interface) = import.strip_prefix(PACKAGE).and_then(|rest| rest.strip_suffix(VERSION)) {
        return match interface {
            "events" | "errors" | "positions" | "log" => true,
            "kafka" => kind != PluginKind::Interceptor,
            _ => false,
        };
    }
    let wasi = import.strip_prefix("wasi:").and_then(|rest| rest.split_once('/'));
    wasi.is_some_and(|(package, rest)| WASI_PACKAGES.contains(&package) && rest.contains("@0.2."))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kind_is_told_by_the_exports() {
        let sink = ["wasmflow:plugin/descriptor@0.1.0", "wasmflow:plugin/sink@0.1.0"];
        assert_eq!(kind_of(&sink), Ok(PluginKind::Sink));
        assert!(kind_of(&sink[1..]).unwrap_err().contains("descriptor@0.1.0"));
        assert!(kind_of(&["wasi:cli/run@0.2.0"]).unwrap_err().contains("it exports `wasi:cli/run@0.2.0`"));
        assert!(kind_of(&["wasmflow:plugin/sink@0.2.0"]).unwrap_err().contains("none of"));
    }

    #[test]
    fn only_sources_and_sinks_are_offered_kafka_and_nobody_http() {
        assert!(is_offered("wasmflow:plugin/kafka@0.1.0", PluginKind::Sink));
        assert!(!is_offered("wasmflow:plugin/kafka@0.1.0", PluginKind::Interceptor));
        assert!(is_offered("wasi:sockets/tcp@0.2.6", PluginKind::Interceptor));
        assert!(!is_offered("wasi:http/outgoing-handler@0.2.0", PluginKind::Sink));
        assert!(!is_offered("wasi:clocks/wall-clock@0.3.0", PluginKind::Sink));
        assert!(!is_offered("other:thing/api@1.0.0", PluginKind::Sink));
    }
}
