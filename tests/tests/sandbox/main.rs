//! Hostile and odd plugins against the engine: a guest cannot harm the host, and each way to try has its own answer.

mod bytes;
mod compile;
mod contract;
mod every_kind;
mod files;
mod grants;
mod limits;
mod load;
mod world;
