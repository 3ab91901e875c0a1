//! Access rules of a broker with an authorizer ([`KafkaBroker::guarded`](crate::broker::KafkaBroker::guarded)).
//!
//! The Rust client has no call for it, so the one request is written here as it goes over the wire.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::time::Duration;

use anyhow::ensure;

/// `CreateAcls`, in a version without tagged fields.
const CREATE_ACLS: i16 = 30;
const VERSION: i16 = 1;

const LITERAL: u8 = 3;
const ALL_OPERATIONS: u8 = 2;
const DENY: u8 = 2;

const LIMIT: Duration = Duration::from_secs(30);

/// What a rule is about.
#[derive(Debug, Clone, Copy)]
pub enum Resource<'n> {
    Topic(&'n str),
    TransactionalId(&'n str),
}

/// Forbids `user` everything on a resource. `address` is the listener of those who may say so.
///
/// # Errors
/// When the broker does not take it.
pub fn deny(address: &str, resource: Resource<'_>, user: &str) -> anyhow::Result<()> {
    let (kind, name) = match resource {
        Resource::Topic(name) => (2, name),
        Resource::TransactionalId(name) => (5, name),
    };
    let mut request = Vec::new();
    request.extend(CREATE_ACLS.to_be_bytes());
    request.extend(VERSION.to_be_bytes());
    request.extend(1_i32.to_be_bytes());
    text(&mut request, "wasmflow-tests");
    request.extend(1_i32.to_be_bytes());
    request.push(kind);
    text(&mut request, name);
    request.push(LITERAL);
    text(&mut request, &format!("User:{user}"));
    text(&mut request, "*");
    request.extend([ALL_OPERATIONS, DENY]);

    let mut connection = TcpStream::connect(address)?;
    connection.set_read_timeout(Some(LIMIT))?;
    connection.write_all(&i32::try_from(request.len())?.to_be_bytes())?;
    connection.write_all(&request)?;
    let mut length = [0; 4];
    connection.read_exact(&mut length)?;
    let mut answer = vec![0; usize::try_from(i32::from_be_bytes(length))?];
    connection.read_exact(&mut answer)?;
    // Its number, the throttle time and the count of results, each of four bytes; then the one result's code.
    ensure!(answer.get(12..14) == Some(&[0, 0]), "the broker does not take the rule about {resource:?}: {answer:?}");
    Ok(())
}

fn text(request: &mut Vec<u8>, text: &str) {
    request.extend(u16::try_from(text.len()).expect("names are short").to_be_bytes());
    request.extend(text.as_bytes());
}
