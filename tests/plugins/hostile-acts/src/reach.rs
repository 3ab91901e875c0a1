//! Asks for one thing that was not granted, as a plugin does whose pipeline file lacks a line, and fails with what the system says.

use std::fmt::Display;
use std::net::{TcpListener, TcpStream, ToSocketAddrs, UdpSocket};

use wasmflow_sdk::prelude::*;

/// A failure that may go well later, so that the stage is there to be looked at.
fn failed<T>(what: &str, result: Result<T, impl Display>) -> Result<(), Failure> {
    match result {
        Err(error) => Err(Failure::retry(format!("{what}: {error}"))),
        Ok(_) => Err(Failure::fatal(format!("breach: {what} was allowed"))),
    }
}

pub fn read_file() -> Result<(), Failure> {
    failed("reading /etc/passwd", std::fs::read("/etc/passwd"))
}

pub fn list_folder() -> Result<(), Failure> {
    failed("listing /etc", std::fs::read_dir("/etc"))
}

pub fn connect(target: &str) -> Result<(), Failure> {
    failed(&format!("connecting to {target}"), TcpStream::connect(target))
}

pub fn listen() -> Result<(), Failure> {
    failed("listening at 127.0.0.1:4444", TcpListener::bind("127.0.0.1:4444"))
}

pub fn resolve(target: &str) -> Result<(), Failure> {
    let host = target.rsplit_once(':').map_or(target, |(host, _)| host);
    let name = if host.starts_with(|first: char| first.is_ascii_digit()) { "example.com" } else { host };
    failed(&format!("resolving {name}"), (name, 80).to_socket_addrs())
}

pub fn datagram() -> Result<(), Failure> {
    failed("opening a datagram socket", UdpSocket::bind("0.0.0.0:0"))
}

pub fn read_variable() -> Result<(), Failure> {
    failed("reading the variable PATH", std::env::var("PATH"))
}
