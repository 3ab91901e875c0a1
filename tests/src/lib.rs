//! Starts the real servers, agents and clients that wasmflow's end-to-end tests and benchmarks run against.
//!
//! Everything a test starts listens on a free port of the loopback interface, keeps its files in a fresh folder and dies
//! with the test process, however that ends. A test whose server is not installed skips aloud; with `CI` set it fails.

pub mod acl;
pub mod admin;
pub mod agent;
pub mod asked;
pub mod binary;
pub mod broker;
pub mod component;
pub mod database;
pub mod folder;
pub mod fuzz;
pub mod hostile;
pub mod ledger;
pub mod lines;
pub mod measure;
pub mod netcat;
pub mod pipelines;
pub mod port;
pub mod process;
pub mod proxy;
pub mod records;
pub mod rolled;
pub mod run;
pub mod skip;
pub mod slow_disk;
pub mod soak;
pub mod stamped;
pub mod stop;
