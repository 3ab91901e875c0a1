//! Swaps of a running agent, by its library: what a swap promises, and what it says when it fails.

mod candidates;
mod ends;
mod interceptors;
mod world;
