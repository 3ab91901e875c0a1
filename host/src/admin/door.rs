//! Who may ask what: the host that is asked for, where the asker comes from, and the token of verbs that act.
//!
//! A web page in a browser on this machine can send requests to the loopback interface. Three things keep it from acting or reading: a
//! page that has rebound its own name to our address still asks for its own name (`Host`), a page's request that acts says so (`Origin`),
//! and no answer allows a page to read it.

use std::net::IpAddr;
use std::sync::Arc;

use axum::http::{HeaderMap, Method, Request, StatusCode, header};

use super::answer::Problem;
use super::token::Token;
use crate::metrics::{AgentCounters, Refusal};

/// Limit: a plugin that is sent with the request; larger ones are not compiled either.
pub const MAX_UPLOAD_BYTES: usize = 16 << 20;
/// Limit: the body of a request: a plugin in base64 with its configuration.
pub const MAX_BODY_BYTES: usize = MAX_UPLOAD_BYTES / 3 * 4 + (1 << 20);

/// How somebody is connected.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Through {
    /// A Unix socket: its permissions say who may.
    Socket,
    /// The loopback interface: whoever is on this machine.
    Loopback,
    /// Any other interface.
    Network,
}

/// Looks at every request before anything else does.
pub struct Door {
    token: Option<Token>,
    /// Lower case.
    hosts: Vec<String>,
    counters: Arc<AgentCounters>,
}

impl Door {
    pub fn new(token: Option<Token>, hosts: Vec<String>, counters: Arc<AgentCounters>) -> Self {
        let own = rustix::system::uname().nodename().to_string_lossy().into_owned();
        let hosts = hosts.into_iter().chain([own, "localhost".into()]).map(|host| host.to_ascii_lowercase());
        Self { token, hosts: hosts.collect(), counters }
    }

    pub fn counters(&self) -> &AgentCounters {
        &self.counters
    }

    /// # Errors
    /// When the request is not to be answered.
    pub fn check<B>(&self, request: &Request<B>, through: Through) -> Result<(), Problem> {
        let (refusal, problem) = match self.refusal(request, through) {
            None => return Ok(()),
            Some(refused) => refused,
        };
        self.counters.refuse(refusal);
        Err(problem)
    }

    fn refusal<B>(&self, request: &Request<B>, through: Through) -> Option<(Refusal, Problem)> {
        let headers = request.headers();
        if through != Through::Socket && !self.is_our_host(request) {
            let problem = Problem::new(StatusCode::FORBIDDEN, "host", "the `Host` of this request is not this agent's");
            let remedy =
                "ask by address or as `localhost`; other names are allowed with `wasmflow run --admin-host NAME`";
            return Some((Refusal::Host, problem.with_remedy(remedy)));
        }
        if acts(request.method()) {
            if is_of_a_page(headers) {
                let problem = Problem::new(StatusCode::FORBIDDEN, "origin", "a web page may not act on an agent");
                return Some((Refusal::Origin, problem));
            }
            if let Some(problem) = self.token_problem(headers, through) {
                return Some((Refusal::Token, problem));
            }
        }
        let length = headers.get(header::CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse::<u64>().ok());
        let problem = length.is_some_and(|length| length > MAX_BODY_BYTES as u64).then(too_large);
        problem.map(|problem| (Refusal::Size, problem))
    }

    fn is_our_host<B>(&self, request: &Request<B>) -> bool {
        // One header, and the same as in a request line that names a host too.
        let mut named = request.headers().get_all(header::HOST).iter();
        let (Some(host), None) = (named.next().and_then(|host| host.to_str().ok()), named.next()) else { return false };
        let authority = request.uri().authority().map(axum::http::uri::Authority::as_str);
        authority.is_none_or(|authority| authority == host) && self.knows(host)
    }

    /// An address is nobody's name, so nobody can rebind it.
    fn knows(&self, host: &str) -> bool {
        let name = match host.rsplit_once(':') {
            Some((name, port)) if port.parse::<u16>().is_ok() && !name.ends_with(':') => name,
            _ => host,
        };
        let bare = name.strip_prefix('[').and_then(|name| name.strip_suffix(']')).unwrap_or(name);
        bare.parse::<IpAddr>().is_ok() || self.hosts.contains(&name.trim_end_matches('.').to_ascii_lowercase())
    }

    fn token_problem(&self, headers: &HeaderMap, through: Through) -> Option<Problem> {
        let denied = |message| Problem::new(StatusCode::UNAUTHORIZED, "token", message);
        match (&self.token, through) {
            (_, Through::Socket) | (None, Through::Loopback) => None,
            (None, Through::Network) => {
                let problem = denied("this agent takes no orders over the network: it was started without a token");
                let remedy = "start it with `--admin-token-file FILE`, or ask over its Unix socket on its own machine";
                Some(problem.with_remedy(remedy))
            }
            (Some(token), Through::Loopback | Through::Network) => match bearer(headers) {
                Some(guess) if token.is(guess) => None,
                Some(_) => Some(denied("wrong token")),
                None => {
                    let remedy = "send `Authorization: Bearer TOKEN`; with the command line `--admin-token-file FILE`";
                    Some(denied("this needs the agent's token").with_remedy(remedy))
                }
            },
        }
    }
}

pub fn too_large() -> Problem {
    let message = format!("the request is larger than the {MAX_BODY_BYTES} bytes that are read");
    Problem::new(StatusCode::PAYLOAD_TOO_LARGE, "body", message)
}

/// Everything that is no mere question.
pub fn acts(method: &Method) -> bool {
    !matches!(*method, Method::GET | Method::HEAD | Method::OPTIONS)
}

fn is_of_a_page(headers: &HeaderMap) -> bool {
    let site = headers.get("sec-fetch-site").map(|site| site.as_bytes());
    headers.contains_key(header::ORIGIN) || site.is_some_and(|site| site != b"none" && site != b"same-origin")
}

fn bearer(headers: &HeaderMap) -> Option<&str> {
    let (scheme, token) = headers.get(header::AUTHORIZATION)?.to_str().ok()?.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| token.trim())
}

#[cfg(test)]
mod tests {
    use super::*;

    const TOKEN: &str = "door-token-0123456789";

    fn door(token: Option<&str>) -> Door {
        Door::new(token.map(|token| Token::new(token).unwrap()), vec!["Agent.Example".into()], Arc::default())
    }

    fn asked(door: &Door, method: &str, headers: &[(&str, &str)], through: Through) -> u16 {
        let mut request = Request::builder().method(method).uri("/v1/stages/a/pause");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        door.check(&request.body(()).unwrap(), through).map_or_else(|problem| problem.status.as_u16(), |()| 200)
    }

    #[test]
    fn a_host_is_an_address_or_a_known_name() {
        let door = door(None);
        let get = |host: &str| asked(&door, "GET", &[("host", host)], Through::Loopback);
        for ours in
            ["127.0.0.1:9464", "127.0.0.1", "localhost:1", "LOCALHOST.", "[::1]:9464", "[::1]", "agent.example:80"]
        {
            assert_eq!(get(ours), 200, "{ours}");
        }
        for theirs in
            ["evil.example", "evil.example:9464", "localhost.evil.example", "", "127.0.0.1.evil.example", "[::1", "a:b"]
        {
            assert_eq!(get(theirs), 403, "{theirs}");
        }
        assert_eq!(asked(&door, "GET", &[], Through::Loopback), 403);
        assert_eq!(asked(&door, "GET", &[("host", "localhost"), ("host", "evil")], Through::Loopback), 403);
        assert_eq!(asked(&door, "GET", &[("host", "whatever")], Through::Socket), 200);
        assert_eq!(door.counters.refused(Refusal::Host), 9);
    }

    #[test]
    fn a_web_page_does_not_act() {
        let door = door(None);
        let post =
            |name: &str, value: &str| asked(&door, "POST", &[("host", "localhost"), (name, value)], Through::Loopback);
        assert_eq!(post("origin", "http://localhost:9464"), 403);
        assert_eq!(post("origin", "null"), 403);
        assert_eq!(post("sec-fetch-site", "cross-site"), 403);
        assert_eq!(post("sec-fetch-site", "none"), 200);
    }

    #[test]
    fn who_acts_over_the_network_has_the_token() {
        let with = door(Some(TOKEN));
        let post = |door: &Door, authorization: Option<&str>, through| {
            let host = [("host", "localhost")].into_iter();
            let headers: Vec<_> = host.chain(authorization.map(|value| ("authorization", value))).collect();
            asked(door, "POST", &headers, through)
        };
        let right = format!("Bearer {TOKEN}");
        for through in [Through::Loopback, Through::Network] {
            assert_eq!(post(&with, None, through), 401);
            assert_eq!(post(&with, Some("Bearer wrong-token-0123456789"), through), 401);
            assert_eq!(post(&with, Some(&format!("Basic {TOKEN}")), through), 401);
            assert_eq!(post(&with, Some(&right), through), 200);
        }
        assert_eq!(post(&with, None, Through::Socket), 200);
        let without = door(None);
        assert_eq!(post(&without, None, Through::Loopback), 200);
        assert_eq!(post(&without, Some(&right), Through::Network), 401);
        assert_eq!(asked(&without, "GET", &[("host", "10.0.0.1")], Through::Network), 200);
    }

    #[test]
    fn a_body_too_large_is_not_waited_for() {
        let headers = [("host", "localhost"), ("content-length", "999999999")];
        assert_eq!(asked(&door(None), "POST", &headers, Through::Loopback), 413);
    }
}
