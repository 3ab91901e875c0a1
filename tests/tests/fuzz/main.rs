//! The fuzz targets under stable `cargo test`: what is kept in their corpus, and ten seconds of random input for all of them together (ten
//! minutes in `make soak`). `tests/fuzz/README.md` has the command for more.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use wasmflow_tests::binary::repository;
use wasmflow_tests::fuzz::{TARGETS, Target};
use wasmflow_tests::soak;

/// Limit: of an input that is made here; what matters is in the first bytes.
const MAX_INPUT_BYTES: usize = 4096;

fn corpus(name: &str) -> Vec<(PathBuf, Vec<u8>)> {
    let mut files = files_in(&format!("fuzz/corpus/{name}"));
    if name == "pipeline_file" {
        files.extend(files_in("config").into_iter().filter(|path| path.extension().is_some_and(|end| end == "toml")));
    }
    files.sort();
    assert!(!files.is_empty(), "nothing is kept for `{name}`");
    files.into_iter().map(|path| (path.clone(), std::fs::read(path).expect("it can be read"))).collect()
}

fn files_in(folder: &str) -> Vec<PathBuf> {
    let folder = repository().join("tests").join(folder);
    let files = std::fs::read_dir(&folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    files.map(|file| file.expect("it can be listed").path()).collect()
}

#[test]
fn what_is_kept_of_earlier_runs_is_borne() {
    for (name, target) in TARGETS {
        for (path, input) in corpus(name) {
            let borne = catch_unwind(AssertUnwindSafe(|| target(&input)));
            assert!(borne.is_ok(), "`{name}` does not bear {}", path.display());
        }
    }
}

#[test]
fn input_at_random_is_borne() {
    std::thread::scope(|scope| {
        let threads = TARGETS.map(|target| scope.spawn(move || random(target)));
        threads.into_iter().for_each(|thread| thread.join().expect("it is borne"));
    });
}

/// Gives the target changed pieces of what is kept. An input that is not borne is printed, to be kept.
fn random((name, target): Target) {
    let mut random = StdRng::seed_from_u64(soak::seed());
    let kept: Vec<Vec<u8>> = corpus(name).into_iter().map(|(_, input)| input).collect();
    let end = Instant::now() + soak::span(Duration::from_millis(2500), Duration::from_secs(150));
    let mut inputs = 0_u64;
    while Instant::now() < end {
        let input = changed(&kept, &mut random);
        let borne = catch_unwind(AssertUnwindSafe(|| target(&input)));
        assert!(borne.is_ok(), "`{name}` does not bear this: {}", input.escape_ascii());
        inputs += 1;
    }
    println!("{name}: {inputs} inputs");
    assert!(inputs > 0);
}

/// One of the kept inputs with a few of its bytes changed, doubled, taken out, or replaced by a piece of another.
fn changed(kept: &[Vec<u8>], random: &mut StdRng) -> Vec<u8> {
    let mut input = kept[random.random_range(0..kept.len())].clone();
    for _ in 0..random.random_range(1..8) {
        let at = random.random_range(0..=input.len());
        let to = (at + random.random_range(0..32_usize)).min(input.len());
        match random.random_range(0..6) {
            0 => input.insert(at, random.random()),
            1 => drop(input.drain(at..to)),
            2 => input.extend_from_within(at..to),
            3 if at < input.len() => input[at] = [0, 1, 0x7f, 0x80, 0xff, random.random()][random.random_range(0..6)],
            4 if at < input.len() => input[at] ^= 1 << random.random_range(0..8),
            _ => {
                let other = &kept[random.random_range(0..kept.len())];
                let from = random.random_range(0..=other.len());
                let piece = other[from..(from + 64).min(other.len())].to_vec();
                input.splice(at..to, piece);
            }
        }
    }
    input.truncate(MAX_INPUT_BYTES);
    input
}
