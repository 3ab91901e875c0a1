//! What a stage was granted, and the memory of what it asked for in vain.

use std::collections::BTreeSet;
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::config::Grants;

/// Limit: denials that are told apart, so that a guest that tries every address fills no memory.
const MAX_DENIALS: usize = 64;

/// A stage's grants. Shared by its WASI context and its store.
#[derive(Debug)]
pub struct Granted {
    pub grants: Grants,
    stage: String,
    denied: Mutex<Denied>,
}

#[derive(Debug, Default)]
struct Denied {
    told: BTreeSet<String>,
    last: Option<String>,
}

impl Granted {
    pub fn new(grants: Grants, pipeline: &str, stage: &str) -> Self {
        Self { grants, stage: format!("{pipeline}/{stage}"), denied: Mutex::default() }
    }

    /// Remembers a denial, and logs it the first time. `line` is what would grant it, as in the pipeline file.
    pub fn deny(&self, what: &str, line: &str) {
        let mut denied = self.denied();
        if denied.told.len() < MAX_DENIALS && denied.told.insert(format!("{what} {line}")) {
            tracing::warn!(stage = %self.stage, "{what} is not granted; the stage needs `{line}`");
        }
        denied.last = Some(format!("{what} is not granted; the stage needs `{line}`"));
    }

    /// The last denial of this call, for the text of its failure.
    pub fn take_denial(&self) -> Option<String> {
        self.denied().last.take()
    }

    fn denied(&self) -> MutexGuard<'_, Denied> {
        self.denied.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
