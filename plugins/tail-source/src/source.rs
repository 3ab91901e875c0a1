//! The plugin: the tail's lines as batches.

use wasmflow_sdk::disk::{Disk, as_written};
use wasmflow_sdk::prelude::*;

use crate::changes::Change;
use crate::config::Config;
use crate::lines::Lines;
use crate::tail::{Polled, Tail};

/// The source. Its position has a part for each file, as the bookmark module draws it.
pub struct TailSource {
    tail: Tail,
    /// What was logged, for tests to see.
    #[cfg(test)]
    told: Vec<(log::Level, String)>,
}

impl Source for TailSource {
    type Config = Config;
    const ABOUT: &'static str = "Brings each line of files as they grow, through renames, truncations and restarts.";
    const REPLAYS: bool = true;

    fn check(config: &Config) -> Result<Vec<Need>, Vec<Problem>> {
        let options = config.options()?;
        let mut folders: Vec<_> = options.patterns.iter().map(|pattern| as_written(pattern.base())).collect();
        folders.sort_unstable();
        folders.dedup();
        Ok(folders.into_iter().map(|folder| Need::new("dirs", folder)).collect())
    }

    fn open(config: Config, position: &Position) -> Result<Self, Failure> {
        let options = config.options().map_err(first)?;
        let disk = Disk::new();
        if let Some(pattern) = options.patterns.iter().find(|pattern| !disk.covers(pattern.base())) {
            let (text, folder) = (pattern.text(), as_written(pattern.base()));
            return Err(Failure::fatal(format!(
                "`{text}` is in no granted folder: add allow = {{ dirs = [{{ path = \"{folder}\" }}] }}"
            )));
        }
        let tail = Tail::new(options, disk, position.iter());
        let mut source = TailSource {
            tail,
            #[cfg(test)]
            told: Vec::new(),
        };
        source.write_log();
        Ok(source)
    }

    fn poll(&mut self, max_events: u32, max_bytes: u32, wait: std::time::Duration) -> Result<Progress, Failure> {
        let polled = self.tail.poll(max_events as usize, max_bytes as usize, wait);
        self.write_log();
        match polled {
            Polled::Lines(lines, changes) => {
                let parts = changes.into_iter().map(|(key, value): Change| Part { key, value }).collect();
                Ok(Progress::events(batch(lines)?, parts))
            }
            Polled::Idle => Ok(Progress::Idle),
            Polled::Finished => Ok(Progress::Finished),
        }
    }
}

fn first(problems: Vec<Problem>) -> Problem {
    problems.into_iter().next().expect("a refused config has a problem")
}

impl TailSource {
    fn write_log(&mut self) {
        for (level, line) in self.tail.take_log() {
            log::write(level, &line);
            #[cfg(test)]
            self.told.push((level, line));
        }
    }

    #[cfg(test)]
    pub(crate) fn told(&mut self) -> Vec<(log::Level, String)> {
        std::mem::take(&mut self.told)
    }
}

fn batch(lines: Lines) -> Result<Batch, Failure> {
    let Lines { data, ends, offsets, offset_ends, runs, .. } = lines;
    let mut batch = Batch::new(&Packed { data, ends });
    if !offset_ends.is_empty() {
        batch.set_header("file", file_column(&runs))?;
        batch.set_header("offset", Packed { data: offsets, ends: offset_ends })?;
    }
    Ok(batch)
}

/// One value for all where all lines are from one file, which is the common case.
fn file_column(runs: &[(std::rc::Rc<str>, u32)]) -> Column {
    if let [(path, _)] = runs {
        return Column::Constant(path.as_bytes().to_vec());
    }
    let each = runs.iter().flat_map(|(path, count)| std::iter::repeat_n(path.as_bytes(), *count as usize));
    Column::Dense(each.collect())
}
