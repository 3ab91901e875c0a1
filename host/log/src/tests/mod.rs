//! The log against the simulated disk.
//!
//! The number of crash points is that of `cargo test`'s patience. For a night: `WASMFLOW_SOAK=1 cargo test --release -p
//! wasmflow-log`, or any number of them in `WASMFLOW_LOG_CRASH_POINTS`; `WASMFLOW_LOG_SEED` repeats one seed.

mod check;
mod clock;
mod crash;
mod damage;
mod faults;
mod files;
mod golden;
mod lossy;
mod model;
mod operator;
mod recycle;
mod sabotage;
mod voids;
mod world;
