//! What came of a reload.

use std::fmt;

use crate::config::{Colour, FileReport, Severity};

/// A reload that went well.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ReloadReport {
    /// Nothing: the file asks for what runs.
    pub applied: Vec<Applied>,
}

/// One thing that was done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Applied {
    /// `added`, `removed`, `swapped`, `restarted`, `resized` or `set`.
    pub action: &'static str,
    /// `source`, `interceptor`, `sink`, `channel` or `pipeline`.
    pub part: &'static str,
    pub name: String,
}

impl fmt::Display for Applied {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} `{}`", self.action, self.part, self.name)
    }
}

impl fmt::Display for ReloadReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, applied) in self.applied.iter().enumerate() {
            write!(f, "{}{applied}", if at > 0 { ", " } else { "" })?;
        }
        Ok(())
    }
}

/// Why a reload was not done. What ran before runs on.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ReloadError {
    /// The operator's to mend: the file is not valid, or asks for what cannot be done while the pipeline runs. The text is that of
    /// `validate`.
    #[error("{text}")]
    Refused { text: String, json: serde_json::Value },
    /// A part of the new pipeline could not be made, opened or swapped.
    #[error("{step}: {cause}")]
    Failed { step: String, cause: String },
    #[error("the pipeline is stopping")]
    Stopping,
}

impl ReloadError {
    pub fn refused(report: &FileReport) -> Self {
        Self::Refused { text: report.text(Severity::Error, Colour::Plain), json: report.json() }
    }

    pub fn failed(step: impl Into<String>, cause: impl fmt::Display) -> Self {
        Self::Failed { step: step.into(), cause: crate::config::mask(&cause.to_string()).into_owned() }
    }
}
