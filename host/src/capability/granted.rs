//! What a stage was granted, and the memory of what it asked for in vain.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::log::LogAllowance;
use crate::config::Grants;
use crate::metrics::{Denied, StageCounters};

/// A stage's grants. Shared by an instance's WASI context and its store.
#[derive(Debug)]
pub struct Granted {
    pub grants: Grants,
    /// `pipeline/stage`.
    stage: String,
    log: Arc<LogAllowance>,
    counters: Arc<StageCounters>,
    asked: Mutex<Asked>,
}

/// What the call that runs has asked for in vain.
#[derive(Debug, Default)]
struct Asked {
    denial: Option<String>,
    environment: bool,
    /// How the call failed in which the environment was asked for. A guest asks once and remembers: the next call fails for the same.
    environment_failure: Option<String>,
}

impl Granted {
    pub fn new(grants: Grants, stage: String, log: Arc<LogAllowance>, counters: Arc<StageCounters>) -> Self {
        Self { grants, stage, log, counters, asked: Mutex::default() }
    }

    /// Remembers a denial, and tells it the first time. `line` is what would grant it, as in the pipeline file.
    pub fn deny(&self, what: &str, line: &str) {
        self.refuse(format!("{what} is not granted; the stage needs `{line}`"));
    }

    /// As [`deny`](Self::deny), of what no line would grant.
    pub fn refuse(&self, denial: String) {
        self.counters.denied(Denied::Grant);
        self.tell(&denial);
        self.asked().denial = Some(denial);
    }

    /// The whole environment is asked for at once, and by most languages whether the plugin wants it or not, by Rust when it panics. So it
    /// is told only of a call that did not trap, and no failure by itself.
    pub fn environment_asked(&self) {
        if self.grants.env.is_empty() {
            self.asked().environment = true;
        }
    }

    /// A call begins: what an earlier one asked for is no reason for how this one ends.
    pub fn call_begins(&self) {
        let mut asked = self.asked();
        (asked.denial, asked.environment) = (None, false);
    }

    /// A call has ended, and not in a trap.
    pub fn call_ended(&self) {
        if self.asked().environment && self.log.is_first(ENVIRONMENT) {
            tracing::info!(stage = %self.stage, "{ENVIRONMENT}");
        }
    }

    /// The last denial of this call, for the text of its trap.
    pub fn take_denial(&self) -> Option<String> {
        self.asked().denial.take()
    }

    /// The last denial of this call, for the text of the guest's own failure.
    pub fn take_reason(&self, failure: &str) -> Option<String> {
        let mut asked = self.asked();
        if let Some(denial) = asked.denial.take() {
            return Some(denial);
        }
        if std::mem::take(&mut asked.environment) {
            asked.environment_failure = Some(failure.to_owned());
        }
        (asked.environment_failure.as_deref() == Some(failure)).then(|| {
            self.counters.denied(Denied::Grant);
            ENVIRONMENT.to_owned()
        })
    }

    fn tell(&self, denial: &str) {
        if self.log.is_first(denial) {
            tracing::warn!(stage = %self.stage, "{denial}");
            self.counters.note_error(&denial);
        }
    }

    fn asked(&self) -> MutexGuard<'_, Asked> {
        self.asked.lock().unwrap_or_else(PoisonError::into_inner)
    }

    #[cfg(test)]
    pub fn of_test(grants: Grants) -> Self {
        Self::new(grants, "p/s".into(), Arc::default(), Arc::default())
    }
}

const ENVIRONMENT: &str =
    "the environment was asked for, and no variable of it is granted; one is by `allow = { env = [\"NAME\"] }`";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_denial_belongs_to_its_call_and_the_environment_to_no_trap() {
        let granted = Granted::of_test(Grants::default());
        granted.deny("the wall clock", "allow = { wall_clock = true }");
        granted.call_begins();
        assert_eq!(granted.take_reason("late"), None);
        granted.environment_asked();
        assert_eq!(granted.take_denial(), None);
        for _ in 0..2 {
            assert!(
                granted.take_reason("no key").is_some_and(|reason| reason.contains("allow = { env = [\"NAME\"] }"))
            );
            granted.call_begins();
        }
        assert_eq!(granted.take_reason("late"), None);
        let granted = Granted::of_test(Grants { env: vec!["HOME".into()], ..Grants::default() });
        granted.environment_asked();
        assert_eq!(granted.take_reason("late"), None);
    }

    #[test]
    fn each_denial_is_counted_and_the_newest_is_what_went_wrong_last() {
        let granted = Granted::of_test(Grants::default());
        for what in ["a", "a", "b"] {
            granted.deny(what, "line");
        }
        assert_eq!(granted.counters.denials(Denied::Grant), 3);
        assert!(granted.counters.last_error().is_some_and(|error| error.text.starts_with("b is not granted")));
    }
}
