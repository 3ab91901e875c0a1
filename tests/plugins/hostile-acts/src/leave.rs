//! Tries to leave the folder that was granted, or to change it where it may only be read. The test has put beside it a file `secret.txt`, and
//! into it `own.txt`, a folder `sub` with `file.txt`, and the links `link.txt` (to the secret) and `up` (to the folder above).

use std::fs::{self, File, OpenOptions};

use wasmflow_sdk::prelude::*;

use crate::grab::denied;

/// Every way to the secret.
const OUTSIDE: [&str; 9] = [
    "granted/../secret.txt",
    "granted/sub/../../secret.txt",
    "granted/./../secret.txt",
    "granted/link.txt",
    "granted/link.txt/",
    "granted/up/secret.txt",
    "granted/up/granted/../secret.txt",
    "/secret.txt",
    "granted/sub/../up/secret.txt",
];

/// How often a racing reader looks.
const LOOKS: u32 = 20_000;

pub fn escape() -> Result<(), Failure> {
    for path in OUTSIDE {
        denied(&format!("reading `{path}`"), File::open(path).map(drop))?;
        denied(&format!("writing `{path}`"), OpenOptions::new().write(true).truncate(true).open(path).map(drop))?;
        denied(
            &format!("naming `{path}` again"),
            fs::hard_link(path, "granted/stolen").and_then(|()| read("granted/stolen")),
        )?;
        denied(&format!("taking `{path}` in"), fs::rename(path, "granted/taken").and_then(|()| read("granted/taken")))?;
        // A link that was taken in or named again leads nowhere either; it is put back.
        let _ = fs::rename("granted/taken", path);
        let _ = fs::remove_file("granted/stolen");
    }
    for path in ["granted/../made", "granted/up/made", "granted/sub/../../made"] {
        denied(&format!("making `{path}`"), fs::create_dir(path))?;
        denied(&format!("writing `{path}`"), fs::write(path, "breach"))?;
        denied(&format!("moving out to `{path}`"), fs::rename("granted/own.txt", path))?;
        denied(&format!("naming `{path}` after a file of ours"), fs::hard_link("granted/own.txt", path))?;
    }
    denied("listing above", fs::read_dir("granted/..").map(drop))?;
    denied("listing through a link", fs::read_dir("granted/up").map(drop))?;
    denied("removing what is outside", fs::remove_file("granted/../secret.txt"))?;
    // What is granted works.
    fs::write("granted/new.txt", "fine").map_err(|error| Failure::fatal(format!("writing inside: {error}")))
}

fn read(path: &str) -> std::io::Result<()> {
    fs::read(path).map(drop)
}

pub fn overwrite() -> Result<(), Failure> {
    let own = "granted/own.txt";
    fs::read(own).map_err(|error| Failure::fatal(format!("reading inside: {error}")))?;
    denied("writing", fs::write(own, "breach"))?;
    denied("truncating", OpenOptions::new().write(true).truncate(true).open(own).map(drop))?;
    denied("appending", OpenOptions::new().append(true).open(own).map(drop))?;
    denied("growing", File::open(own).and_then(|file| file.set_len(100)))?;
    denied("making a file", File::create("granted/new.txt").map(drop))?;
    denied("making a folder", fs::create_dir("granted/new"))?;
    denied("renaming", fs::rename(own, "granted/other.txt"))?;
    denied("linking", fs::hard_link(own, "granted/other.txt"))?;
    denied("removing", fs::remove_file(own))?;
    denied("removing a folder", fs::remove_dir_all("granted/sub"))
}

pub fn race() -> Result<(), Failure> {
    for _ in 0..LOOKS {
        if let Ok(text) = fs::read_to_string("granted/sub/file.txt")
            && text.contains("secret")
        {
            return Err(Failure::fatal("breach: read what is outside while the folder was exchanged"));
        }
    }
    Ok(())
}
