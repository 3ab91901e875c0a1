//! What there is to tell the operator: each trouble once, until it is over.

use std::collections::HashSet;

use wasmflow_sdk::log::Level;

/// Lines for the log, and the troubles that have been told.
#[derive(Default)]
pub struct Journal {
    lines: Vec<(Level, String)>,
    told: HashSet<String>,
}

impl Journal {
    pub fn say(&mut self, level: Level, line: String) {
        self.lines.push((level, line));
    }

    /// Tells of the things that are in trouble now. One that was told before is not told again until it has been well.
    pub fn troubles(&mut self, now: impl IntoIterator<Item = (String, String)>) {
        let mut lasting = HashSet::new();
        for (thing, line) in now {
            if !self.told.contains(&thing) && !lasting.contains(&thing) {
                self.say(Level::Warn, line);
            }
            lasting.insert(thing);
        }
        self.told = lasting;
    }

    /// The lines since the last time.
    pub fn take(&mut self) -> Vec<(Level, String)> {
        std::mem::take(&mut self.lines)
    }
}
