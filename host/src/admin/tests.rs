//! The endpoint against its own description, and against who floods it.

use std::collections::BTreeSet;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::http::{Method, Request};
use hyper::service::Service as _;
use hyper_util::service::TowerToHyperService;
use serde_json::Value;

use super::*;
use crate::control::health::STALL;
use crate::plugin::{Engine, EngineOptions};

fn desk() -> Arc<Desk> {
    let engine = Engine::new(EngineOptions::default()).expect("the engine starts");
    let agent = Handle::current();
    Arc::new(Desk { control: Control::new(engine), agent, rates: Mutex::default(), patience: Patience(STALL) })
}

/// Paths with their methods, as `/v1/status get`.
fn described() -> BTreeSet<String> {
    let description: Value = serde_json::from_str(openapi::DESCRIPTION).expect("it is JSON");
    let paths = description["paths"].as_object().expect("paths are a table");
    let methods = |(path, item): (&String, &Value)| {
        let methods = item.as_object().expect("a path is a table").keys();
        methods.map(|method| format!("{path} {method}")).collect::<Vec<_>>()
    };
    paths.iter().flat_map(methods).collect()
}

#[tokio::test]
async fn the_description_names_every_path_and_method_and_no_other() {
    let router = TowerToHyperService::new(routes::router(desk()));
    let mut served = BTreeSet::new();
    for (path, _) in routes::paths() {
        for method in [Method::GET, Method::POST, Method::PUT, Method::DELETE, Method::PATCH] {
            let uri = path.replace(['{', '}'], "");
            let request = Request::builder().method(&method).uri(uri).body(Body::empty()).expect("a request");
            let answer = router.call(request).await.expect("a router always answers");
            if answer.status() != 405 {
                served.insert(format!("{path} {}", method.as_str().to_ascii_lowercase()));
            }
        }
    }
    assert_eq!(served, described());
}

#[test]
fn every_schema_that_is_referred_to_is_there() {
    let description: Value = serde_json::from_str(openapi::DESCRIPTION).expect("it is JSON");
    let schemas = description["components"]["schemas"].as_object().expect("schemas are a table");
    let text = openapi::DESCRIPTION;
    let referred: BTreeSet<_> =
        text.split("#/components/schemas/").skip(1).filter_map(|rest| rest.split('"').next()).collect();
    let known: BTreeSet<_> = schemas.keys().map(String::as_str).collect();
    assert_eq!(referred, known);
}

fn start(address: &str) -> (Admin, Control) {
    let desk = desk();
    let options = AdminOptions {
        addresses: vec![address.parse().expect("an address")],
        token: None,
        hosts: Vec::new(),
        patience: desk.patience,
    };
    let admin = Admin::start(options, desk.control.clone(), Handle::current()).expect("the port is free");
    (admin, desk.control.clone())
}

fn free_address() -> String {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port is free");
    listener.local_addr().expect("it is bound").to_string()
}

fn ask(stream: &mut TcpStream) -> String {
    stream.write_all(b"GET /healthz HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n").expect("it is taken");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("it is answered");
    answer
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_comes_when_all_connections_are_taken_is_told_and_counted_and_served_when_one_is_free() {
    let address = free_address();
    let (_admin, control) = start(&address);
    let connect = || TcpStream::connect(&address).expect("the system's queue takes it");
    let mut taken: Vec<_> = (0..64).map(|_| connect()).collect();
    let mut late = connect();
    let mut answer = String::new();
    late.read_to_string(&mut answer).expect("it is turned away");
    assert!(answer.starts_with("HTTP/1.1 503"), "{answer}");
    assert!(control.agent_counters().refused(crate::metrics::Refusal::Connections) >= 1);
    assert!(ask(&mut taken[63]).starts_with("HTTP/1.1 200"));
    drop(taken);
    // The endpoint hears of it when it next looks: until then it may turn away.
    let served = (0..1000).any(|_| {
        std::thread::sleep(Duration::from_millis(10));
        let mut stream = connect();
        let mut answer = String::new();
        _ = stream.write_all(b"GET /healthz HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n");
        _ = stream.read_to_string(&mut answer);
        answer.starts_with("HTTP/1.1 200")
    });
    assert!(served);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_address_in_use_is_refused_and_named() {
    let address = free_address();
    let (_admin, control) = start(&address);
    let options = AdminOptions {
        addresses: vec![address.parse().expect("an address")],
        token: None,
        hosts: Vec::new(),
        patience: Patience(STALL),
    };
    let error = Admin::start(options, control, Handle::current()).err().expect("the port is taken");
    assert!(error.to_string().contains(&address), "{error}");
    assert!(error.remedy().is_some());
}
