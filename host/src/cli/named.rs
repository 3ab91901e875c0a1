//! The plugin that a command names: a standard one, or a file.

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

use wasmflow::config::nearest_hint;
use wasmflow::plugin::{Engine, Plugin, PluginError, PluginKind, PluginOrigin};

use super::{INVALID, chain};

/// All plugins of this name: a standard name may be several plugins', of different kinds.
pub async fn named(name: &str, engine: &Engine) -> Result<Vec<Arc<Plugin>>, PluginError> {
    if name.contains('/') || name.ends_with(".wasm") {
        return Ok(vec![engine.load(&PluginOrigin::File(PathBuf::from(name))).await?]);
    }
    let mut plugins = Vec::new();
    for kind in PluginKind::ALL {
        if Engine::standard(kind).any(|standard| standard == name) {
            plugins.push(engine.load(&PluginOrigin::Standard { name: name.into(), kind }).await?);
        }
    }
    if plugins.is_empty() {
        let known = PluginKind::ALL.into_iter().flat_map(Engine::standard).collect();
        // The kind is not asked for here; any will do for the message.
        return Err(PluginError::UnknownStandard { kind: PluginKind::Source, name: name.into(), known });
    }
    Ok(plugins)
}

/// Says why there is no such plugin.
pub fn refused(error: &PluginError) -> ExitCode {
    if let PluginError::UnknownStandard { name, known, .. } = error {
        eprintln!("error: there is no standard plugin `{name}`");
        eprintln!("  hint: {}; a file is named by its path, as in `./my.wasm`", hint(name, known.clone()));
        return ExitCode::from(INVALID);
    }
    eprintln!("error: {}", chain(error));
    if let Some(remedy) = error.remedy() {
        eprintln!("  hint: {remedy}");
    }
    ExitCode::from(INVALID)
}

fn hint(name: &str, mut known: Vec<&'static str>) -> String {
    known.sort_unstable();
    known.dedup();
    nearest_hint(name, known, "plugin").unwrap_or_default()
}
