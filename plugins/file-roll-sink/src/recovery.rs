//! Finishing files: those that are full, and those that a crash has left open.

use std::io;

use wasmflow_sdk::disk::{CHUNK_BYTES, Disk, Entry, Handle, Kind, child};

use crate::mark::{Mark, Verdict};
use crate::name::{self, Names};

/// What became of a file.
#[derive(Debug, PartialEq, Eq)]
pub enum Finished {
    /// It has its final name. So many bytes of a batch that was never settled were cut off.
    Named { cut: u64 },
    /// It held no whole batch and is gone.
    Empty,
}

/// Cuts a file that is open back to its last whole batch and gives it its final name.
///
/// Crash: may be done again from any point. The file is cut first, then named, and its mark goes last: a file without a mark
/// that is still open ends with a line, and a mark without a file is swept away.
///
/// # Errors
/// Of the disk; `AlreadyExists` where the final name is taken, `NotFound` where the file has gone.
pub fn finish(disk: &Disk, folder: &str, finished: &str, sync: bool) -> io::Result<Finished> {
    let (open, mark) = (child(folder, &name::open(finished)), child(folder, &name::mark(finished)));
    let file = match disk.open_to_write(&open) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            remove_if_there(disk, &mark)?;
            return Err(error);
        }
        opened => opened?,
    };
    let size = file.stat()?.size;
    let verdict = match disk.open(&mark) {
        Ok(handle) => Mark::read(&handle)?.map_or(Verdict::Unknown, |mark| mark.judge(size)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Verdict::Unknown,
        Err(error) => return Err(error),
    };
    let whole = match verdict {
        Verdict::Whole => size,
        Verdict::CutTo(begin) => begin,
        Verdict::Unknown => last_line_end(&file, size)?,
    };
    if whole < size {
        file.set_size(whole)?;
        if sync {
            file.sync()?;
        }
    }
    drop(file);
    let outcome = if whole == 0 {
        disk.remove(&open)?;
        Finished::Empty
    } else {
        give_name(disk, &open, &child(folder, finished))?;
        Finished::Named { cut: size - whole }
    };
    remove_if_there(disk, &mark)?;
    if sync {
        disk.sync_folder(folder)?;
    }
    Ok(outcome)
}

/// Never takes the place of another file.
fn give_name(disk: &Disk, open: &str, finished: &str) -> io::Result<()> {
    match disk.stat(finished) {
        Ok(_) => Err(io::ErrorKind::AlreadyExists.into()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => disk.rename(open, finished),
        Err(error) => Err(error),
    }
}

fn remove_if_there(disk: &Disk, path: &str) -> io::Result<()> {
    match disk.remove(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        done => done,
    }
}

/// Where the last line ends that has its newline, looked for from the end.
fn last_line_end(file: &Handle, size: u64) -> io::Result<u64> {
    let mut end = size;
    while end > 0 {
        let start = end.saturating_sub(CHUNK_BYTES as u64);
        let bytes = file.read(start, (end - start) as usize)?;
        if let Some(index) = bytes.iter().rposition(|byte| *byte == b'\n') {
            return Ok(start + index as u64 + 1);
        }
        end = start;
    }
    Ok(0)
}

/// What one sink has left in its folder: finished names of files still open, and marks without a file.
pub struct Leftovers {
    pub open: Vec<String>,
    pub marks: Vec<String>,
}

/// # Errors
/// Of the disk.
pub fn leftovers(disk: &Disk, folder: &str, names: &Names) -> io::Result<Leftovers> {
    let files: Vec<Entry> = disk.list(folder)?.into_iter().filter(|entry| entry.kind == Kind::File).collect();
    let ours = |suffix: &str| -> Vec<String> {
        let stems = files.iter().filter_map(|entry| entry.name.strip_suffix(suffix));
        stems.filter(|stem| names.is_finished(stem)).map(str::to_owned).collect()
    };
    let mut open = ours(&name::open(""));
    open.sort_unstable();
    let marks = ours(&name::mark("")).into_iter().filter(|stem| !open.contains(stem)).collect();
    Ok(Leftovers { open, marks })
}
