//! Reload: a changed pipeline file is applied to the pipeline that runs, as a difference.
//!
//! One [`Reloader`] a pipeline: whoever asks (SIGHUP, the watcher, the admin endpoint) asks it, and it does one reload after the
//! other. Requests that come while one is done share the next, which reads the file anew: the last one wins.
//!
//! ```text
//! asked ─▶ loaded ─▶ compared ─▶ made ─▶ swapped ─▶ exchanged ─▶ done
//!            │          │          │        │ the generations before serve again
//!            └──────────┴──────────┴────────┴──▶ refused: what runs goes on as it is
//! ```

pub mod difference;
mod place;
mod report;
pub mod watch;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use tokio::sync::{mpsc, oneshot};
use tracing::{error, info, warn};

pub use place::{Places, field_problems};
pub use report::{Applied, ReloadError, ReloadReport};

use crate::config::{self, FileReport, LoadedPlugins, Pipeline};
use crate::control::Control;
use watch::Watcher;

/// Requests that may wait: whoever finds the queue full is served by those that wait there.
const REQUESTS_MAX: usize = 64;

/// A file that is valid, on its way to the pipeline that runs.
pub struct Wanted {
    pub pipeline: Pipeline,
    pub plugins: LoadedPlugins,
    pub places: Places,
    /// What `validate` would say of it, without errors.
    pub report: FileReport,
}

/// A [`Wanted`] pipeline, and where the answer goes.
pub struct Change {
    pub wanted: Wanted,
    pub answer: oneshot::Sender<Result<ReloadReport, ReloadError>>,
}

type Answer = oneshot::Sender<Result<ReloadReport, ReloadError>>;

/// Asks for reloads of one pipeline. A clone asks the same one.
#[derive(Debug, Clone)]
pub struct ReloadHandle {
    path: Arc<Path>,
    requests: mpsc::Sender<Option<Answer>>,
}

impl ReloadHandle {
    /// The pipeline file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Reads the file and applies it. Answers when that has been done or refused.
    ///
    /// Cancel: the reload goes on to its end.
    ///
    /// # Errors
    /// What was refused or has failed; what ran before runs on.
    pub async fn reload(&self) -> Result<ReloadReport, ReloadError> {
        let (answer, answered) = oneshot::channel();
        self.requests.send(Some(answer)).await.map_err(|_| ReloadError::Stopping)?;
        answered.await.unwrap_or(Err(ReloadError::Stopping))
    }

    /// Asks for a reload that nobody waits for: the log says how it went.
    pub fn request(&self) {
        // A full queue holds enough requests that have not begun.
        _ = self.requests.try_send(None);
    }
}

/// Does the reloads of one pipeline.
pub struct Reloader {
    handle: ReloadHandle,
    requests: mpsc::Receiver<Option<Answer>>,
    changes: mpsc::Sender<Change>,
    control: Control,
    watcher: Option<Watcher>,
}

impl Reloader {
    /// For the pipeline of this file; what it makes of changed files comes out of the receiver.
    pub fn new(path: &Path, control: &Control) -> (Self, ReloadHandle, mpsc::Receiver<Change>) {
        let (requests, asked) = mpsc::channel(REQUESTS_MAX);
        let (changes, changed) = mpsc::channel(1);
        let handle = ReloadHandle { path: path.into(), requests };
        let control = control.clone();
        let reloader = Self { handle: handle.clone(), requests: asked, changes, control, watcher: None };
        (reloader, handle, changed)
    }

    /// Reloads by itself when the file changes, or one of `files`: those that it names.
    #[must_use]
    pub fn watching(mut self, files: &[(PathBuf, Option<String>)]) -> Self {
        self.watcher = Some(Watcher::new(self.handle.path.to_path_buf(), files));
        self
    }

    /// Runs until the pipeline has ended.
    pub async fn run(mut self) {
        if self.watcher.is_some() {
            // The file may have changed between the start and the watch.
            let result = self.reload().await;
            if !result.as_ref().is_ok_and(|report| report.applied.is_empty()) {
                self.note(&result);
            }
        }
        loop {
            let mut waiting = Vec::new();
            tokio::select! {
                () = self.changes.closed() => return,
                request = self.requests.recv() => match request {
                    Some(request) => waiting.push(request),
                    None => return,
                },
                () = changed(&mut self.watcher) => waiting.push(None),
            }
            // All that wait by now want what is in the file by now.
            while let Ok(request) = self.requests.try_recv() {
                waiting.push(request);
            }
            let result = self.reload().await;
            self.note(&result);
            for answer in waiting.into_iter().flatten() {
                _ = answer.send(result.clone());
            }
        }
    }

    fn note(&self, result: &Result<ReloadReport, ReloadError>) {
        self.control.agent_counters().reloaded(result.is_ok());
        tell(&self.handle.path, result);
    }

    async fn reload(&mut self) -> Result<ReloadReport, ReloadError> {
        let path = self.handle.path.to_path_buf();
        let loaded =
            config::load(std::slice::from_ref(&path), &|name| std::env::var_os(name), self.control.engine()).await;
        let loaded = loaded.into_iter().next().expect("one file was loaded");
        if let Some(watcher) = &mut self.watcher {
            watcher.also(&loaded.named_files);
        }
        let Some(pipeline) = loaded.pipeline else { return Err(ReloadError::refused(&loaded.report)) };
        let places = Places::of(&loaded.report.file);
        let wanted = Wanted { pipeline, plugins: loaded.plugins, places, report: loaded.report };
        let (answer, answered) = oneshot::channel();
        self.changes.send(Change { wanted, answer }).await.map_err(|_| ReloadError::Stopping)?;
        let result = answered.await.unwrap_or(Err(ReloadError::Stopping));
        if let (Ok(_), Some(watcher)) = (&result, &mut self.watcher) {
            watcher.only(&loaded.named_files);
        }
        result
    }
}

async fn changed(watcher: &mut Option<Watcher>) {
    match watcher {
        Some(watcher) => watcher.changed().await,
        None => std::future::pending().await,
    }
}

/// One line for each reload.
fn tell(path: &Path, result: &Result<ReloadReport, ReloadError>) {
    let file = path.display();
    match result {
        Ok(report) if report.applied.is_empty() => info!(%file, "reloaded: nothing has changed"),
        Ok(report) => info!(%file, changes = %report, "reloaded"),
        Err(ReloadError::Stopping) => warn!(%file, "not reloaded: the pipeline is stopping"),
        Err(error) => error!(%file, report = %error, "not reloaded; what runs goes on as it is"),
    }
}
