//! WASI 0.2 with grants only: nothing of the machine is seen that the pipeline file does not name.
//!
//! wasmtime's own implementation does the work. Four interfaces are replaced: the wall clock and the random numbers, which have no
//! error to answer with and therefore trap without a grant, name lookup, which would else carry data out in names, and the monotonic
//! clock, whose waits can be cut short. So are single functions: one of TCP, which would let a stranger end a guest that listens, those whose
//! refusal would not name the missing grant, and the reading of files, which would change threads.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;

use wasmtime::StoreContextMut;
use wasmtime::component::{HasData, Linker, Resource};
use wasmtime_wasi::cli::WasiCliView as _;
use wasmtime_wasi::p2::bindings::cli::environment;
use wasmtime_wasi::p2::bindings::clocks::wall_clock::{self, Datetime};
use wasmtime_wasi::p2::bindings::random::random;
use wasmtime_wasi::p2::bindings::sockets::ip_name_lookup::{self, ResolveAddressStream};
use wasmtime_wasi::p2::bindings::sockets::network::{
    self, ErrorCode, IpAddress, IpAddressFamily, IpSocketAddress, Network,
};
use wasmtime_wasi::p2::bindings::sockets::tcp;
use wasmtime_wasi::p2::{DynPollable, SocketError, TcpSocket, UdpSocket};
use wasmtime_wasi::random::WasiRandomCtx;
use wasmtime_wasi::sockets::WasiSocketsCtxView;
use wasmtime_wasi::{WasiCtx, WasiCtxBuilder, WasiCtxView, WasiView};

use super::granted::Granted;
use super::net::NetRules;
use super::stdio::{LogStream, PrintStream};
use super::waited::Waited;
use super::{State, clock, files, read_now};
use crate::plugin::Broken;

/// Limit: random bytes in one call.
const MAX_RANDOM_BYTES: u64 = 64 << 10;

/// As wasmtime-wasi offers them; a guest may import any 0.2.
const TCP: &str = "wasi:sockets/tcp@0.2.12";
const UDP: &str = "wasi:sockets/udp-create-socket@0.2.12";
const ENVIRONMENT: &str = "wasi:cli/environment@0.2.12";

/// Where a plugin's standard output goes.
#[derive(Debug, Clone)]
pub enum Output {
    /// A sink's: printed.
    Print(PrintStream),
    Log(LogStream),
}

impl Output {
    /// The count of what calls have waited for the reader; nobody waits for the log.
    pub fn waited(&self) -> Waited {
        match self {
            Self::Print(stream) => stream.waited().clone(),
            Self::Log(_) => Waited::default(),
        }
    }
}

/// Makes the WASI context of one instance.
///
/// # Errors
/// When a granted folder cannot be opened; that may go well later.
pub fn context(granted: &Granted, net: Arc<NetRules>, output: &Output, error: &LogStream) -> Result<WasiCtx, String> {
    let mut builder = WasiCtxBuilder::new();
    match output {
        Output::Print(stream) => builder.stdout(stream.clone()),
        Output::Log(stream) => builder.stdout(stream.clone()),
    };
    builder.stderr(error.clone());
    builder.max_random_size(MAX_RANDOM_BYTES);
    builder.allow_udp(false);
    // Sockets may be made; each address is asked for, so that a refusal can name it.
    builder.allow_tcp(true).allow_ip_name_lookup(true);
    builder.socket_addr_check(move |address, usage| Box::pin(std::future::ready(net.allows(address, usage))));
    for name in &granted.grants.env {
        if let Ok(value) = std::env::var(name) {
            builder.env(name, value);
        }
    }
    for dir in &granted.grants.dirs {
        files::preopen(&mut builder, dir)?;
    }
    Ok(builder.build())
}

/// Offers WASI 0.2.
pub fn add_to_linker(linker: &mut Linker<State>) -> wasmtime::Result<()> {
    wasmtime_wasi::p2::add_to_linker_async(linker)?;
    linker.allow_shadowing(true);
    wall_clock::add_to_linker::<State, HasClock>(linker, |state| Clock { granted: &state.granted })?;
    clock::add_to_linker(linker)?;
    random::add_to_linker::<State, HasDice>(linker, |state| Dice {
        granted: &state.granted,
        random: state.wasi.random(),
    })?;
    ip_name_lookup::add_to_linker::<State, HasLookup>(linker, |state| Lookup {
        net: &state.net,
        names: &mut state.lookups,
        sockets: WasiSocketsCtxView { ctx: state.wasi.sockets(), table: &mut state.table },
    })?;
    linker.instance(TCP)?.func_wrap("[method]tcp-socket.remote-address", remote_address)?;
    linker.instance(UDP)?.func_wrap("create-udp-socket", create_udp_socket)?;
    linker.instance(ENVIRONMENT)?.func_wrap("get-environment", environment)?;
    files::add_to_linker(linker)?;
    read_now::add_to_linker(linker)?;
    linker.allow_shadowing(false);
    Ok(())
}

/// The address of a client that has reset its connection is no longer known, and wasi-libc aborts on that error, in `accept` even: any
/// client could end the instance. Such a client is said to be at the unspecified address; reading from it says the rest.
fn remote_address(
    mut store: StoreContextMut<'_, State>,
    (socket,): (Resource<TcpSocket>,),
) -> wasmtime::Result<(Result<IpSocketAddress, ErrorCode>,)> {
    let state = store.data_mut();
    let mut sockets = WasiSocketsCtxView { ctx: state.wasi.sockets(), table: &mut state.table };
    let family = tcp::HostTcpSocket::address_family(&mut sockets, Resource::new_borrow(socket.rep()))?;
    let unspecified = match family {
        IpAddressFamily::Ipv4 => SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0)),
        IpAddressFamily::Ipv6 => SocketAddr::from((Ipv6Addr::UNSPECIFIED, 0)),
    };
    let address = tcp::HostTcpSocket::remote_address(&mut sockets, socket).unwrap_or_else(|_| unspecified.into());
    Ok((Ok(address),))
}

/// No plugin has datagrams: there is no grant for them.
fn create_udp_socket(
    store: StoreContextMut<'_, State>,
    (_,): (IpAddressFamily,),
) -> wasmtime::Result<(Result<Resource<UdpSocket>, ErrorCode>,)> {
    store.data().granted.refuse("plugins have no UDP, and nothing grants it".into());
    Ok((Err(ErrorCode::AccessDenied),))
}

fn environment(mut store: StoreContextMut<'_, State>, (): ()) -> wasmtime::Result<(Vec<(String, String)>,)> {
    let state = store.data_mut();
    state.granted.environment_asked();
    Ok((environment::Host::get_environment(&mut state.cli())?,))
}

impl WasiView for State {
    fn ctx(&mut self) -> WasiCtxView<'_> {
        WasiCtxView { ctx: &mut self.wasi, table: &mut self.table }
    }
}

struct HasClock;
impl HasData for HasClock {
    type Data<'a> = Clock<'a>;
}

struct Clock<'a> {
    granted: &'a Granted,
}

impl Clock<'_> {
    fn check(&self) -> Result<(), Broken> {
        match self.granted.grants.wall_clock {
            true => Ok(()),
            false => Err(Broken::not_granted("the wall clock", "allow = { wall_clock = true }")),
        }
    }
}

impl wall_clock::Host for Clock<'_> {
    fn now(&mut self) -> wasmtime::Result<Datetime> {
        self.check()?;
        // A clock before 1970 is answered as 1970: WASI cannot say otherwise.
        let now = std::time::SystemTime::UNIX_EPOCH.elapsed().unwrap_or_default();
        Ok(Datetime { seconds: now.as_secs(), nanoseconds: now.subsec_nanos() })
    }

    fn resolution(&mut self) -> wasmtime::Result<Datetime> {
        Ok(Datetime { seconds: 0, nanoseconds: 1 })
    }
}

struct HasDice;
impl HasData for HasDice {
    type Data<'a> = Dice<'a>;
}

struct Dice<'a> {
    granted: &'a Granted,
    random: &'a mut WasiRandomCtx,
}

impl Dice<'_> {
    fn check(&self) -> Result<(), Broken> {
        match self.granted.grants.random {
            true => Ok(()),
            false => Err(Broken::not_granted("randomness", "allow = { random = true }")),
        }
    }
}

impl random::Host for Dice<'_> {
    fn get_random_bytes(&mut self, len: u64) -> wasmtime::Result<Vec<u8>> {
        self.check()?;
        random::Host::get_random_bytes(self.random, len)
    }

    fn get_random_u64(&mut self) -> wasmtime::Result<u64> {
        self.check()?;
        random::Host::get_random_u64(self.random)
    }
}

struct HasLookup;
impl HasData for HasLookup {
    type Data<'a> = Lookup<'a>;
}

/// Name lookup for granted names only; what they resolve to is remembered for the check of addresses.
struct Lookup<'a> {
    net: &'a NetRules,
    names: &'a mut std::collections::HashMap<u32, String>,
    sockets: WasiSocketsCtxView<'a>,
}

/// Errors of name lookup are those of the network.
impl network::Host for Lookup<'_> {
    fn network_error_code(&mut self, error: Resource<wasmtime::Error>) -> wasmtime::Result<Option<ErrorCode>> {
        network::Host::network_error_code(&mut self.sockets, error)
    }

    fn convert_error_code(&mut self, error: SocketError) -> wasmtime::Result<ErrorCode> {
        network::Host::convert_error_code(&mut self.sockets, error)
    }
}

impl network::HostNetwork for Lookup<'_> {
    fn drop(&mut self, network: Resource<Network>) -> wasmtime::Result<()> {
        network::HostNetwork::drop(&mut self.sockets, network)
    }
}

fn ip(address: IpAddress) -> IpAddr {
    match address {
        IpAddress::Ipv4((a, b, c, d)) => Ipv4Addr::new(a, b, c, d).into(),
        IpAddress::Ipv6((a, b, c, d, e, f, g, h)) => Ipv6Addr::new(a, b, c, d, e, f, g, h).into(),
    }
}

impl ip_name_lookup::Host for Lookup<'_> {
    fn resolve_addresses(
        &mut self,
        network: Resource<Network>,
        name: String,
    ) -> Result<Resource<ResolveAddressStream>, SocketError> {
        if !self.net.allows_lookup(&name) {
            return Err(ErrorCode::AccessDenied.into());
        }
        let stream = ip_name_lookup::Host::resolve_addresses(&mut self.sockets, network, name.clone())?;
        self.names.insert(stream.rep(), name);
        Ok(stream)
    }
}

impl ip_name_lookup::HostResolveAddressStream for Lookup<'_> {
    fn resolve_next_address(
        &mut self,
        stream: Resource<ResolveAddressStream>,
    ) -> Result<Option<IpAddress>, SocketError> {
        let name = self.names.get(&stream.rep());
        let address = ip_name_lookup::HostResolveAddressStream::resolve_next_address(&mut self.sockets, stream)?;
        if let (Some(address), Some(name)) = (&address, name) {
            self.net.resolved(name, ip(*address));
        }
        Ok(address)
    }

    fn subscribe(&mut self, stream: Resource<ResolveAddressStream>) -> wasmtime::Result<Resource<DynPollable>> {
        ip_name_lookup::HostResolveAddressStream::subscribe(&mut self.sockets, stream)
    }

    fn drop(&mut self, stream: Resource<ResolveAddressStream>) -> wasmtime::Result<()> {
        self.names.remove(&stream.rep());
        ip_name_lookup::HostResolveAddressStream::drop(&mut self.sockets, stream)
    }
}
