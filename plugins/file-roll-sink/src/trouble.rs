//! What went wrong with a file, in the operator's words, and whose fault it is.

use std::io;

use wasmflow_sdk::prelude::*;

use crate::config::Config;

/// The failure to answer with: a disk that is full or broken may be well later; a missing right is not.
pub fn failure(action: &str, path: &str, error: &io::Error, config: &Config) -> Failure {
    use io::ErrorKind as Kind;
    match error.kind() {
        Kind::StorageFull | Kind::QuotaExceeded => {
            Failure::retry(format!("cannot {action} `{path}`: the disk is full ({error})"))
        }
        Kind::PermissionDenied | Kind::ReadOnlyFilesystem => Failure::fatal(format!(
            "cannot {action} `{path}`: {error}; this sink needs allow = {{ dirs = [{}] }} and the right to write there",
            config.grant()
        )),
        _ => Failure::retry(format!("cannot {action} `{path}`: {error}")),
    }
}

/// What a failure says.
pub fn reason(failure: &Failure) -> &str {
    match failure {
        Failure::Retry(retry) => &retry.reason,
        Failure::Reject(reason) | Failure::Fatal(reason) => reason,
    }
}
