//! The source as the host drives it, with real clients. They are std sockets of this thread: what they send waits in the operating
//! system until the source is polled.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::time::{Duration, Instant};

use wasmflow_sdk::prelude::*;

use super::{Config, Netcat};

const PATIENCE: Duration = Duration::from_secs(10);

fn config(more: serde_json::Value) -> Config {
    let mut json = serde_json::json!({ "bind": "127.0.0.1:0" });
    json.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    serde_json::from_value(json).unwrap()
}

/// A source, and the events it has brought.
struct Fixture {
    source: Netcat,
    bodies: Vec<String>,
    remotes: Vec<String>,
    batches: u64,
}

impl Fixture {
    fn open(more: serde_json::Value) -> Self {
        let source = Netcat::open(config(more), &Position::default()).unwrap();
        Self { source, bodies: Vec::new(), remotes: Vec::new(), batches: 0 }
    }

    fn client(&self) -> TcpStream {
        let client = TcpStream::connect(self.source.addresses()[0]).unwrap();
        client.set_read_timeout(Some(PATIENCE)).unwrap();
        client
    }

    fn client_that_sent(&self, text: &str) -> TcpStream {
        let mut client = self.client();
        client.write_all(text.as_bytes()).unwrap();
        client
    }

    fn poll(&mut self, max_events: u32, wait: Duration) -> usize {
        match self.source.poll(max_events, 1 << 20, wait).unwrap() {
            Progress::Events(polled) => {
                let remotes = polled.batch.header("remote").unwrap();
                for (row, body) in polled.batch.bodies().iter().enumerate() {
                    self.bodies.push(String::from_utf8_lossy(body).into_owned());
                    self.remotes.push(String::from_utf8_lossy(remotes.get(row).unwrap()).into_owned());
                }
                self.batches += 1;
                polled.batch.count()
            }
            _ => 0,
        }
    }

    /// Polls until so many events were brought in all.
    fn bring(&mut self, events: usize) {
        let started = Instant::now();
        while self.bodies.len() < events {
            assert!(started.elapsed() < PATIENCE, "{} of {events} events came", self.bodies.len());
            self.poll(1000, Duration::from_millis(50));
        }
    }

    fn settle_all(&mut self) {
        self.source.acked(self.batches).unwrap();
    }

    fn turn(&mut self) {
        for _ in 0..5 {
            assert_eq!(self.poll(0, Duration::ZERO), 0);
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

fn read(client: &mut TcpStream, bytes: usize) -> String {
    let mut buffer = vec![0; bytes];
    client.read_exact(&mut buffer).unwrap();
    String::from_utf8(buffer).unwrap()
}

fn read_to_end(client: &mut TcpStream) -> String {
    let mut text = String::new();
    client.read_to_string(&mut text).unwrap();
    text
}

fn has_nothing_to_read(client: &TcpStream) -> bool {
    client.set_nonblocking(true).unwrap();
    let nothing = client.peek(&mut [0]).is_err();
    client.set_nonblocking(false).unwrap();
    nothing
}

#[test]
fn a_line_is_an_event_with_its_clients_address() {
    let mut fixture = Fixture::open(serde_json::json!({}));
    let client = fixture.client_that_sent("hello flume\r\n\n");
    fixture.bring(2);
    assert_eq!(fixture.bodies, ["hello flume", ""]);
    assert_eq!(fixture.remotes, vec![client.local_addr().unwrap().to_string(); 2]);
}

#[test]
fn ok_leaves_in_the_call_that_settles_the_event_and_not_before() {
    let mut fixture = Fixture::open(serde_json::json!({}));
    let mut client = fixture.client_that_sent("one\ntwo\n");
    fixture.bring(2);
    fixture.turn();
    assert!(has_nothing_to_read(&client));
    fixture.settle_all();
    assert_eq!(read(&mut client, 6), "OK\nOK\n");
}

#[test]
fn each_client_gets_its_own_answers() {
    let mut fixture = Fixture::open(serde_json::json!({}));
    let mut clients: Vec<_> = (0..20).map(|number| fixture.client_that_sent(&"line\n".repeat(number))).collect();
    fixture.bring((0..20).sum());
    fixture.settle_all();
    fixture.turn();
    for (number, client) in clients.iter_mut().enumerate() {
        assert_eq!(read(client, 3 * number), "OK\n".repeat(number));
        assert!(has_nothing_to_read(client));
    }
}

#[test]
fn an_ack_of_the_first_batch_answers_its_events_only() {
    let mut fixture = Fixture::open(serde_json::json!({}));
    let mut client = fixture.client_that_sent("one\n");
    fixture.bring(1);
    client.write_all(b"two\nthree\n").unwrap();
    fixture.bring(3);
    fixture.source.acked(1).unwrap();
    assert_eq!(read(&mut client, 3), "OK\n");
    assert!(has_nothing_to_read(&client));
    fixture.settle_all();
    assert_eq!(read(&mut client, 6), "OK\nOK\n");
}

#[test]
fn without_acks_nothing_is_answered() {
    let mut fixture = Fixture::open(serde_json::json!({ "ack_every_event": false }));
    let mut client = fixture.client_that_sent("one\ntwo\n");
    client.shutdown(Shutdown::Write).unwrap();
    fixture.bring(2);
    fixture.settle_all();
    fixture.turn();
    assert_eq!(read_to_end(&mut client), "");
}

#[test]
fn a_client_that_has_said_its_last_is_answered_before_it_is_hung_up_on() {
    let mut fixture = Fixture::open(serde_json::json!({}));
    let mut client = fixture.client_that_sent("one\nhalf");
    client.shutdown(Shutdown::Write).unwrap();
    fixture.bring(1);
    fixture.turn();
    assert!(has_nothing_to_read(&client));
    fixture.settle_all();
    fixture.turn();
    assert_eq!(read_to_end(&mut client), "OK\n");
    assert_eq!(fixture.bodies, ["one"]);
}

#[test]
fn an_unfinished_last_line_is_kept_when_asked_for() {
    let mut fixture = Fixture::open(serde_json::json!({ "keep_partial": true }));
    drop(fixture.client_that_sent("one\nhalf"));
    fixture.bring(2);
    assert_eq!(fixture.bodies, ["one", "half"]);
}

#[test]
fn lines_of_a_client_that_is_gone_are_brought_all_the_same() {
    let mut fixture = Fixture::open(serde_json::json!({}));
    drop(fixture.client_that_sent("one\ntwo\n"));
    fixture.turn();
    fixture.bring(2);
    fixture.settle_all();
    fixture.settle_all();
    let mut next = fixture.client_that_sent("three\n");
    fixture.bring(3);
    fixture.settle_all();
    assert_eq!(read(&mut next, 3), "OK\n");
}

#[test]
fn a_line_too_long_is_refused_after_the_answers_to_what_came_before() {
    let mut fixture = Fixture::open(serde_json::json!({ "max_line_bytes": "10B" }));
    let mut client = fixture.client_that_sent("one\ntwo\n12345678901\nfour\n");
    let mut other = fixture.client_that_sent("other\n");
    fixture.bring(3);
    fixture.turn();
    assert!(has_nothing_to_read(&client));
    fixture.settle_all();
    fixture.turn();
    assert_eq!(read_to_end(&mut client), "OK\nOK\nFAILED: the line is longer than 10 bytes (max_line_bytes)\n");
    assert_eq!(read(&mut other, 3), "OK\n");
    assert!(!fixture.bodies.contains(&"four".into()));
}

#[test]
fn a_refusal_is_read_even_when_the_client_goes_on_sending() {
    let mut fixture = Fixture::open(serde_json::json!({ "max_line_bytes": "10B" }));
    let mut client = fixture.client_that_sent(&"x".repeat(100_000));
    fixture.turn();
    client.write_all("y".repeat(100_000).as_bytes()).unwrap();
    fixture.turn();
    assert_eq!(read(&mut client, 7), "FAILED:");
}

#[test]
fn a_waiting_poll_returns_as_soon_as_a_line_is_whole() {
    let mut fixture = Fixture::open(serde_json::json!({}));
    let mut client = fixture.client();
    let started = Instant::now();
    let sender = std::thread::spawn(move || {
        std::thread::sleep(Duration::from_millis(50));
        client.write_all(b"half").unwrap();
        std::thread::sleep(Duration::from_millis(50));
        client.write_all(b" whole\n").unwrap();
        client
    });
    assert_eq!(fixture.poll(1000, PATIENCE), 1);
    assert!((Duration::from_millis(100)..PATIENCE).contains(&started.elapsed()));
    assert_eq!(fixture.bodies, ["half whole"]);
    sender.join().unwrap();
}

#[test]
fn an_idle_poll_waits_as_long_as_it_may() {
    let mut fixture = Fixture::open(serde_json::json!({}));
    let started = Instant::now();
    assert_eq!(fixture.poll(1000, Duration::from_millis(60)), 0);
    assert!(started.elapsed() >= Duration::from_millis(60));
}

#[test]
fn a_batch_is_bounded_by_events_and_by_bytes() {
    let mut fixture = Fixture::open(serde_json::json!({}));
    let _client = fixture.client_that_sent(&"0123456789\n".repeat(100));
    fixture.turn();
    assert_eq!(fixture.poll(7, Duration::ZERO), 7);
    let count = |progress| match progress {
        Progress::Events(polled) => polled.batch.count(),
        _ => 0,
    };
    assert_eq!(count(fixture.source.poll(1000, 35, Duration::ZERO).unwrap()), 3);
    assert_eq!(count(fixture.source.poll(1000, 5, Duration::ZERO).unwrap()), 1);
}

#[test]
fn a_busy_client_does_not_starve_another() {
    let mut fixture = Fixture::open(serde_json::json!({}));
    let _busy = fixture.client_that_sent(&"busy\n".repeat(5000));
    fixture.turn();
    let _rare = fixture.client_that_sent("rare\n");
    fixture.turn();
    fixture.poll(100, Duration::ZERO);
    assert!(fixture.bodies.contains(&"rare".into()));
}

#[test]
fn with_the_channel_full_clients_wait_and_nothing_is_lost() {
    let mut fixture = Fixture::open(serde_json::json!({}));
    let mut client = fixture.client();
    // Over 60 MB: more than the kernel's buffers of both sides hold together, whatever it lets them grow to.
    let (lines, filling) = (60_000, "x".repeat(1000));
    let sender = std::thread::spawn(move || {
        for number in 0..lines {
            client.write_all(format!("line number {number} {filling}\n").as_bytes()).unwrap();
        }
        client
    });
    // The source takes no more than its bound, however often it is polled, and a new client is let in meanwhile.
    for _ in 0..50 {
        assert_eq!(fixture.poll(0, Duration::ZERO), 0);
        std::thread::sleep(Duration::from_millis(2));
    }
    assert!(!sender.is_finished());
    let mut second = fixture.client_that_sent("second\n");
    fixture.bring(lines + 1);
    let first: Vec<_> = fixture.bodies.iter().filter(|body| *body != "second").collect();
    assert!(first.iter().enumerate().all(|(number, body)| body.starts_with(&format!("line number {number} x"))));
    fixture.settle_all();
    assert_eq!(read(&mut second, 3), "OK\n");
    let mut client = sender.join().unwrap();
    let reader = std::thread::spawn(move || read(&mut client, 3 * lines));
    while !reader.is_finished() {
        fixture.turn();
    }
    assert_eq!(reader.join().unwrap(), "OK\n".repeat(lines));
}

#[test]
fn closing_answers_what_is_settled_and_hangs_up() {
    let mut fixture = Fixture::open(serde_json::json!({}));
    let mut client = fixture.client_that_sent("settled\n");
    fixture.bring(1);
    fixture.source.acked(1).unwrap();
    client.write_all(b"brought\n").unwrap();
    fixture.bring(2);
    client.write_all(b"never brought\n").unwrap();
    fixture.source.close();
    assert_eq!(read_to_end(&mut client), "OK\n");
}

#[test]
fn who_is_hung_up_on_is_let_in_by_the_next_source_only() {
    let mut fixture = Fixture::open(serde_json::json!({}));
    let address = fixture.source.addresses()[0];
    let mut client = fixture.client_that_sent("settled\n");
    fixture.bring(1);
    fixture.settle_all();
    let comes_again = std::thread::spawn(move || {
        assert_eq!(read_to_end(&mut client), "OK\n");
        TcpStream::connect(address).is_ok()
    });
    fixture.source.close();
    assert!(!comes_again.join().unwrap(), "somebody still listened");
}

#[test]
fn a_port_in_use_is_fatal_and_named() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let config = config(serde_json::json!({ "bind": address }));
    let Err(Failure::Fatal(reason)) = Netcat::open(config, &Position::default()) else { panic!("it was opened") };
    assert!(reason.contains(&address), "{reason}");
}

#[test]
fn check_names_the_grant_and_every_problem() {
    let needs = Netcat::check(&config(serde_json::json!({ "bind": "localhost:44444" }))).unwrap();
    assert_eq!((needs[0].grant.as_str(), needs[0].value.as_str()), ("listen", "localhost:44444"));
    let bad = config(serde_json::json!({ "bind": "44444", "max_line_bytes": "1GiB" }));
    let paths: Vec<_> = Netcat::check(&bad).unwrap_err().into_iter().map(|problem| problem.path).collect();
    assert_eq!(paths, ["/bind", "/max_line_bytes"]);
}
