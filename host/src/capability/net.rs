//! Which addresses a plugin reaches: those its pipeline names, checked after name resolution.
//!
//! A name that is granted stands for the addresses it was resolved to, and only in this instance; so the address checked is the
//! address used. An address of a private network is reached only when it is named itself, or by a name that belongs to
//! private networks: else whoever owns a public name could point it into ours.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use wasmtime_wasi::sockets::SocketAddrUse;

use super::granted::Granted;
use crate::config::HostPort;

/// Limit: addresses remembered for the names of one instance.
const MAX_RESOLVED: usize = 1024;

/// Endings of names that no public resolver answers.
const PRIVATE_SUFFIXES: [&str; 8] =
    [".localhost", ".local", ".internal", ".intranet", ".private", ".lan", ".home.arpa", ".test"];

/// The network as one instance may use it.
#[derive(Debug)]
pub struct NetRules {
    granted: Arc<Granted>,
    resolved: Mutex<HashMap<IpAddr, Vec<String>>>,
}

/// How far an address is from the public internet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Reach {
    Public,
    /// Loopback, private, shared and other special ranges.
    Private,
    /// Link-local addresses, and those where clouds keep their credentials.
    Link,
}

impl NetRules {
    pub fn new(granted: Arc<Granted>) -> Arc<Self> {
        Arc::new(Self { granted, resolved: Mutex::default() })
    }

    /// Whether the guest may do this with the address. A refusal is remembered with the line that would grant it.
    pub fn allows(&self, address: SocketAddr, usage: SocketAddrUse) -> bool {
        match usage {
            SocketAddrUse::TcpConnect => self.allows_connect(address),
            // The system binds for `connect` to no address and no port in particular.
            SocketAddrUse::TcpBind if address.ip().is_unspecified() && address.port() == 0 => true,
            SocketAddrUse::TcpBind => self.allows_listen(address, |grant, port| grant == port),
            SocketAddrUse::TcpListen => self.allows_listen(address, |grant, port| grant == port || grant == 0),
            // Whoever may listen may accept: the grant is the address listened on.
            SocketAddrUse::TcpAccept => !self.granted.grants.listen.is_empty(),
            SocketAddrUse::UdpBind | SocketAddrUse::UdpSend | SocketAddrUse::UdpReceive => false,
        }
    }

    /// Whether the guest may ask for the addresses of this name.
    pub fn allows_lookup(&self, name: &str) -> bool {
        let grants = &self.granted.grants;
        let is_address = name.trim_matches(['[', ']']).parse::<IpAddr>().is_ok();
        // `localhost` tells nobody anything, and a granted 127.0.0.1 is often written so in a configuration.
        let is_local = same_name(name, "localhost") && !grants.net.is_empty();
        let named = || grants.net.iter().chain(&grants.listen).any(|grant| same_name(&grant.host, name));
        let known = is_address || is_local || named();
        if !known {
            self.granted.deny(&format!("the address of `{name}`"), &format!("allow = {{ net = [\"{name}:PORT\"] }}"));
        }
        known
    }

    /// Remembers that a name was resolved to this address.
    pub fn resolved(&self, name: &str, address: IpAddr) {
        let mut resolved = self.names();
        let room = resolved.len() < MAX_RESOLVED;
        match resolved.get_mut(&canonical(address)) {
            Some(names) if !names.iter().any(|known| known == name) && names.len() < 16 => names.push(name.to_owned()),
            Some(_) => {}
            None if room => drop(resolved.insert(canonical(address), vec![name.to_owned()])),
            None => {}
        }
    }

    fn allows_connect(&self, address: SocketAddr) -> bool {
        let ip = canonical(address.ip());
        let names = self.names().get(&ip).cloned().unwrap_or_default();
        let allowed = self.granted.grants.net.iter().filter(|grant| grant.port == address.port()).any(|grant| {
            names_address(grant, ip) || (names.iter().any(|name| same_name(&grant.host, name)) && by_name(grant, ip))
        });
        if !allowed {
            self.deny_connect(address.port(), ip, &names);
        }
        allowed
    }

    fn deny_connect(&self, port: u16, ip: IpAddr, names: &[String]) {
        // A name without the grant is told by its name; a granted name that leads inside by its address.
        let name = names.iter().find(|name| reach(ip) == Reach::Public || is_private_name(name));
        let host = name.cloned().unwrap_or_else(|| ip.to_string());
        let wanted = HostPort { host, port };
        let via = names.first().filter(|_| name.is_none()).map(|name| format!(" (an address of `{name}`)"));
        let what = format!("a connection to {wanted}{}", via.unwrap_or_default());
        self.granted.deny(&what, &format!("allow = {{ net = [\"{wanted}\"] }}"));
    }

    fn allows_listen(&self, address: SocketAddr, port_fits: impl Fn(u16, u16) -> bool) -> bool {
        let ip = canonical(address.ip());
        let names = self.names().get(&ip).cloned().unwrap_or_default();
        let allowed = self.granted.grants.listen.iter().any(|grant| {
            let named = names_address(grant, ip) || names.iter().any(|name| same_name(&grant.host, name));
            named && port_fits(grant.port, address.port())
        });
        if !allowed {
            let wanted = HostPort { host: ip.to_string(), port: address.port() };
            let line = format!("allow = {{ listen = [\"{wanted}\"] }}");
            self.granted.deny(&format!("listening on {wanted}"), &line);
        }
        allowed
    }

    fn names(&self) -> MutexGuard<'_, HashMap<IpAddr, Vec<String>>> {
        self.resolved.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whether the grant names this very address; `localhost` names the two of the loopback.
fn names_address(grant: &HostPort, ip: IpAddr) -> bool {
    match grant.host.parse::<IpAddr>() {
        Ok(named) => canonical(named) == ip,
        Err(_) => {
            same_name(&grant.host, "localhost")
                && (ip == IpAddr::V4(Ipv4Addr::LOCALHOST) || ip == IpAddr::V6(Ipv6Addr::LOCALHOST))
        }
    }
}

/// Whether a granted name may lead to this address.
fn by_name(grant: &HostPort, ip: IpAddr) -> bool {
    match reach(ip) {
        Reach::Public => true,
        Reach::Private => is_private_name(&grant.host),
        Reach::Link => false,
    }
}

fn is_private_name(name: &str) -> bool {
    let name = name.trim_end_matches('.').to_ascii_lowercase();
    !name.contains('.') || PRIVATE_SUFFIXES.iter().any(|suffix| name.ends_with(suffix))
}

fn same_name(one: &str, other: &str) -> bool {
    one.trim_end_matches('.').eq_ignore_ascii_case(other.trim_end_matches('.'))
}

/// The address that packets go to: an IPv4 address wrapped into an IPv6 one is taken out.
fn canonical(ip: IpAddr) -> IpAddr {
    let IpAddr::V6(v6) = ip else { return ip };
    let s = v6.segments();
    let embedded = |high: u16, low: u16| {
        let ([a, b], [c, d]) = (high.to_be_bytes(), low.to_be_bytes());
        IpAddr::V4(Ipv4Addr::new(a, b, c, d))
    };
    match s {
        _ if v6 == Ipv6Addr::LOCALHOST || v6.is_unspecified() => ip,
        // Mapped (::ffff:0:0/96), translated (::ffff:0:0:0/96), compatible (::/96) and NAT64 (64:ff9b::/96).
        [0, 0, 0, 0, 0, 0xffff | 0, high, low] | [0, 0, 0, 0, 0xffff, 0, high, low] => embedded(high, low),
        [0x64, 0xff9b, 0, 0, 0, 0, high, low] => embedded(high, low),
        // 6to4 carries the address of its gateway.
        [0x2002, high, low, ..] => embedded(high, low),
        _ => ip,
    }
}

fn reach(ip: IpAddr) -> Reach {
    match canonical(ip) {
        IpAddr::V4(v4) => reach_v4(v4),
        IpAddr::V6(v6) => reach_v6(v6),
    }
}

fn reach_v4(ip: Ipv4Addr) -> Reach {
    const ALIBABA_METADATA: Ipv4Addr = Ipv4Addr::new(100, 100, 100, 200);
    let [a, b, ..] = ip.octets();
    let shared = a == 100 && (64..128).contains(&b);
    let special = a == 0 || a >= 240 || (a == 192 && b == 0) || (a == 198 && (b == 18 || b == 19));
    match ip {
        _ if ip.is_link_local() || ip == ALIBABA_METADATA => Reach::Link,
        _ if ip.is_loopback() || ip.is_private() || ip.is_multicast() || shared || special => Reach::Private,
        _ => Reach::Public,
    }
}

fn reach_v6(ip: Ipv6Addr) -> Reach {
    const AMAZON_METADATA: Ipv6Addr = Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254);
    match ip {
        _ if ip.is_unicast_link_local() || ip == AMAZON_METADATA => Reach::Link,
        _ if ip.is_loopback() || ip.is_unspecified() || ip.is_unique_local() || ip.is_multicast() => Reach::Private,
        // Local-use NAT64 and Teredo lead where we cannot see.
        _ if matches!(ip.segments(), [0x64, 0xff9b, 1, ..] | [0x2001, 0, ..]) => Reach::Private,
        _ => Reach::Public,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Grants;

    fn rules(net: &[(&str, u16)], listen: &[(&str, u16)]) -> Arc<NetRules> {
        let list =
            |grants: &[(&str, u16)]| grants.iter().map(|&(host, port)| HostPort { host: host.into(), port }).collect();
        let grants = Grants { net: list(net), listen: list(listen), ..Grants::default() };
        NetRules::new(Arc::new(Granted::of_test(grants)))
    }

    fn connects(rules: &NetRules, address: &str) -> bool {
        rules.allows(address.parse().unwrap(), SocketAddrUse::TcpConnect)
    }

    #[test]
    fn nothing_is_reached_without_a_grant() {
        let rules = rules(&[], &[]);
        assert!(!connects(&rules, "127.0.0.1:80"));
        assert!(!connects(&rules, "93.184.216.34:80"));
        assert_eq!(
            rules.granted.take_denial().as_deref(),
            Some(
                "a connection to 93.184.216.34:80 is not granted; the stage needs `allow = { net = [\"93.184.216.34:80\"] }`"
            )
        );
    }

    #[test]
    fn an_address_is_reached_on_the_port_named() {
        let rules = rules(&[("10.0.0.5", 80), ("::1", 81)], &[]);
        assert!(connects(&rules, "10.0.0.5:80"));
        assert!(connects(&rules, "[::ffff:10.0.0.5]:80"));
        assert!(connects(&rules, "[::1]:81"));
        assert!(!connects(&rules, "10.0.0.5:81"));
        assert!(!connects(&rules, "10.0.0.6:80"));
    }

    #[test]
    fn a_name_stands_for_what_it_was_resolved_to() {
        let rules = rules(&[("example.com", 443)], &[]);
        assert!(!connects(&rules, "93.184.216.34:443"));
        assert!(rules.allows_lookup("Example.com."));
        assert!(!rules.allows_lookup("example.org"));
        rules.resolved("example.com", "93.184.216.34".parse().unwrap());
        assert!(connects(&rules, "93.184.216.34:443"));
        assert!(!connects(&rules, "93.184.216.34:80"));
        assert!(rules.granted.take_denial().unwrap().contains("allow = { net = [\"example.com:80\"] }"));
    }

    #[test]
    fn a_public_name_does_not_lead_into_a_private_network() {
        let rules = rules(&[("example.com", 80)], &[]);
        for inside in ["10.1.2.3", "192.168.0.1", "127.0.0.1", "169.254.169.254", "fd00::1", "fe80::1", "0.0.0.0"] {
            let ip: IpAddr = inside.parse().unwrap();
            rules.resolved("example.com", ip);
            assert!(!rules.allows(SocketAddr::new(ip, 80), SocketAddrUse::TcpConnect), "{inside}");
        }
        assert!(rules.granted.take_denial().unwrap().contains("(an address of `example.com`)"));
    }

    #[test]
    fn a_private_name_leads_into_a_private_network_but_not_to_the_metadata() {
        let rules = rules(&[("db", 3306), ("mysql.internal", 3306)], &[]);
        rules.resolved("db", "10.1.2.3".parse().unwrap());
        rules.resolved("mysql.internal", "169.254.169.254".parse().unwrap());
        assert!(connects(&rules, "10.1.2.3:3306"));
        assert!(!connects(&rules, "169.254.169.254:3306"));
    }

    #[test]
    fn localhost_is_the_loopback() {
        let rules = rules(&[("localhost", 3306)], &[("localhost", 4444)]);
        assert!(connects(&rules, "127.0.0.1:3306"));
        assert!(connects(&rules, "[::1]:3306"));
        assert!(rules.allows("127.0.0.1:4444".parse().unwrap(), SocketAddrUse::TcpListen));
    }

    #[test]
    fn localhost_may_be_asked_for_where_the_loopback_is_granted_by_its_address() {
        let rules = rules(&[("127.0.0.1", 3306)], &[]);
        assert!(rules.allows_lookup("localhost"));
        rules.resolved("localhost", "127.0.0.1".parse().unwrap());
        assert!(connects(&rules, "127.0.0.1:3306"));
        assert!(!connects(&rules, "127.0.0.1:80"));
        assert!(rules.granted.take_denial().unwrap().contains("allow = { net = [\"localhost:80\"] }"));
    }

    #[test]
    fn an_address_hidden_in_another_is_seen() {
        for hidden in ["::ffff:169.254.169.254", "64:ff9b::a9fe:a9fe", "2002:a9fe:a9fe::1", "::169.254.169.254"] {
            assert_eq!(reach(hidden.parse().unwrap()), Reach::Link, "{hidden}");
        }
        assert_eq!(reach("::ffff:10.0.0.1".parse().unwrap()), Reach::Private);
        assert_eq!(reach("2606:2800:220:1::1".parse().unwrap()), Reach::Public);
    }

    #[test]
    fn listening_needs_its_own_grant_and_port_0_means_any_free_one() {
        let rules = rules(&[("127.0.0.1", 80)], &[("127.0.0.1", 0)]);
        let address = |text: &str| text.parse().unwrap();
        assert!(rules.allows(address("127.0.0.1:0"), SocketAddrUse::TcpBind));
        assert!(rules.allows(address("127.0.0.1:40001"), SocketAddrUse::TcpListen));
        assert!(!rules.allows(address("127.0.0.1:80"), SocketAddrUse::TcpBind));
        assert!(!rules.allows(address("0.0.0.0:40001"), SocketAddrUse::TcpListen));
        assert!(rules.allows(address("0.0.0.0:0"), SocketAddrUse::TcpBind));
        assert!(rules.allows(address("8.8.8.8:999"), SocketAddrUse::TcpAccept));
        assert!(!rules.allows(address("8.8.8.8:53"), SocketAddrUse::UdpSend));
    }
}
