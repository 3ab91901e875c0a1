//! A granted folder is left by no path, link or rename, whoever moves things meanwhile.

use std::os::unix::fs::symlink;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};

use serde_json::json;
use wasmflow::config::{DirGrant, Grants, Limits};
use wasmflow::plugin::{PluginKind, StageContext};
use wasmflow_tests::folder::Folder;

use crate::world::*;

const SECRET: &str = "secret: not yours";

/// A folder with a secret and, beside it, what is granted; see `leave.rs` of the hostile acts.
fn ground() -> Folder {
    let ground = Folder::new("granted");
    let granted = ground.join("granted");
    std::fs::create_dir_all(granted.join("sub")).expect("the test's own folder is writable");
    ground.write("secret.txt", SECRET);
    ground.write("granted/own.txt", "own");
    ground.write("granted/sub/file.txt", "inside");
    symlink("../secret.txt", granted.join("link.txt")).expect("a link can be made");
    symlink(ground.path(), granted.join("up")).expect("a link can be made");
    ground
}

fn stage_in(ground: &Folder, kind: PluginKind, write: bool) -> StageContext {
    let dir = DirGrant { path: ground.join("granted"), as_written: "granted".into(), write };
    // The race takes a while.
    let limits = Limits { cpu: CALL * 20, call: CALL * 40, ..stage(kind).limits };
    StageContext { grants: Grants { dirs: vec![dir], ..Grants::default() }, limits, ..stage(kind) }
}

/// What stands in the folder above the granted one.
fn above(ground: &Folder) -> Vec<PathBuf> {
    let mut names: Vec<_> = std::fs::read_dir(ground.path())
        .expect("it is there")
        .map(|entry| entry.expect("it is listed").path())
        .collect();
    names.sort();
    names
}

#[tokio::test]
async fn a_granted_folder_is_left_by_no_path_no_link_and_no_rename() {
    for kind in PluginKind::ALL {
        let ground = ground();
        let before = above(&ground);
        let outcome = acted(&stage_in(&ground, kind, true), json!({ "mode": "escape" })).await;
        outcome.unwrap_or_else(|error| panic!("{kind}: {error}"));
        assert_eq!(above(&ground), before, "{kind}");
        assert_eq!(std::fs::read_to_string(ground.join("secret.txt")).expect("it is still there"), SECRET, "{kind}");
        assert_eq!(
            std::fs::read_to_string(ground.join("granted/own.txt")).expect("it is still there"),
            "own",
            "{kind}"
        );
        assert_eq!(
            std::fs::read_to_string(ground.join("granted/new.txt")).expect("it may be written"),
            "fine",
            "{kind}"
        );
    }
}

#[tokio::test]
async fn a_folder_that_may_be_read_is_not_changed() {
    for kind in PluginKind::ALL {
        let ground = ground();
        let outcome = acted(&stage_in(&ground, kind, false), json!({ "mode": "overwrite" })).await;
        outcome.unwrap_or_else(|error| panic!("{kind}: {error}"));
        assert_eq!(
            std::fs::read_to_string(ground.join("granted/own.txt")).expect("it is still there"),
            "own",
            "{kind}"
        );
        assert_eq!(std::fs::read_dir(ground.join("granted")).expect("it is there").count(), 4, "{kind}");
    }
}

#[tokio::test]
async fn a_folder_exchanged_for_a_link_in_mid_flight_leads_nowhere() {
    PluginKind::ALL.into_iter().for_each(race);
}

fn race(kind: PluginKind) {
    let ground = ground();
    // Outside stands a file of the same name, in what the folder is exchanged for.
    std::fs::create_dir(ground.join("outside")).expect("the test's own folder is writable");
    ground.write("outside/file.txt", SECRET);
    let (sub, aside, link) = (ground.join("granted/sub"), ground.join("aside"), ground.join("link"));
    symlink(ground.join("outside"), &link).expect("a link can be made");
    let over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let exchanging = scope.spawn(|| {
            let mut exchanges = 0;
            while !over.load(Ordering::Relaxed) {
                let moved = |from, to| std::fs::rename(from, to).expect("nobody else moves it");
                moved(&sub, &aside);
                moved(&link, &sub);
                moved(&sub, &link);
                moved(&aside, &sub);
                exchanges += 1;
            }
            exchanges
        });
        let stage = stage_in(&ground, kind, false);
        // A runtime cannot be made, used or dropped within another one's thread.
        let racing = scope.spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            runtime.expect("a runtime can be made").block_on(acted(&stage, json!({ "mode": "race" })))
        });
        let outcome = racing.join().expect("it does not panic");
        over.store(true, Ordering::Relaxed);
        let exchanges = exchanging.join().expect("it does not panic");
        println!("{kind}: exchanged {exchanges} times");
        assert!(exchanges > 0);
        outcome.unwrap_or_else(|error| panic!("{kind}: {error}"));
    });
}
