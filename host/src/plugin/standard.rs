//! The standard plugins, embedded in the binary by `build.rs`.

use super::{PluginError, PluginKind};

/// One plugin of `plugins/`, compiled.
pub struct Standard {
    pub name: &'static str,
    pub kind: PluginKind,
    pub component: &'static [u8],
}

include!(concat!(env!("OUT_DIR"), "/standard.rs"));

/// # Errors
/// When there is none of this name and kind; the nearest thing to a remedy is the list of those there are.
pub fn find(kind: PluginKind, name: &str) -> Result<&'static [u8], PluginError> {
    let found = ALL.iter().find(|plugin| plugin.kind == kind && plugin.name == name);
    found.map(|plugin| plugin.component).ok_or_else(|| PluginError::UnknownStandard {
        kind,
        name: name.into(),
        known: ALL.iter().filter(|plugin| plugin.kind == kind).map(|plugin| plugin.name).collect(),
    })
}
