//! What `file-roll` sinks have written, in the order in which they wrote it.

use std::path::Path;

/// All lines of a folder, those of files that are still open too; a line that is being written may be cut.
///
/// # Panics
/// When the folder or a file in it cannot be read.
pub fn rolled_lines(folder: &Path) -> Vec<String> {
    loop {
        let mut files: Vec<(u64, u64, String)> = std::fs::read_dir(folder)
            .expect("the test's own folder")
            .map(|entry| entry.expect("the test's own folder").file_name().to_string_lossy().into_owned())
            .filter(|name| !name.ends_with(".batch"))
            .filter_map(|name| {
                let mut parts = name.split('.').next()?.rsplit('-');
                let number = parts.next()?.parse().ok()?;
                Some((parts.next()?.parse().ok()?, number, name))
            })
            .collect();
        files.sort_unstable();
        let read = |(_, _, name): &(u64, u64, String)| std::fs::read_to_string(folder.join(name));
        // A file that is renamed meanwhile is looked for again.
        if let Ok(texts) = files.iter().map(read).collect::<Result<Vec<_>, _>>() {
            return texts.iter().flat_map(|text| text.lines()).map(str::to_owned).collect();
        }
    }
}
