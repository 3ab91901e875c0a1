//! The admin endpoint's options, for whoever offers it and for whoever asks it.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::Args;
use tokio::runtime::Handle;
use wasmflow::admin::{Address, Admin, AdminOptions, Place, Token, TokenError};
use wasmflow::config::mask;
use wasmflow::control::Control;
use wasmflow::control::health::Patience;

use super::{FAILED, INVALID, chain};

/// What `--admin-token-file` takes the place of.
const TOKEN_VARIABLE: &str = "WASMFLOW_ADMIN_TOKEN";

/// Of `wasmflow run`.
#[derive(Args)]
pub struct Offer {
    /// Listen at this address too, beside the Unix socket by which `wasmflow status` finds this agent: HOST:PORT, a PORT of the
    /// loopback interface, or a path; `off`: nowhere at all. May be repeated
    #[arg(long = "admin", value_name = "ADDR")]
    places: Vec<Place>,
    /// Over TCP, take orders (swap, rollback, pause, resume) only with the token in this file's first line; also in the variable
    /// WASMFLOW_ADMIN_TOKEN. Without one, nobody gives orders from other machines
    #[arg(long = "admin-token-file", value_name = "FILE")]
    token_file: Option<PathBuf>,
    /// A name by which others ask for this machine over TCP, beside its addresses, `localhost` and its own name. May be repeated
    #[arg(long = "admin-host", value_name = "NAME")]
    hosts: Vec<String>,
    /// Say on /readyz that the agent is not ready when a stage has failed, or has not come on, for this long
    #[arg(long, value_name = "TIME", default_value = "60s", value_parser = humantime::parse_duration)]
    stall_after: Duration,
}

impl Offer {
    /// Starts the endpoint. Nothing: it is off.
    ///
    /// # Errors
    /// The exit code, when it has been said what is wrong.
    pub fn start(self, control: &Control) -> Result<Option<Admin>, ExitCode> {
        let is_off = self.places.contains(&Place::Off);
        if is_off && self.places.len() > 1 {
            eprintln!("error: --admin off and --admin ADDR exclude each other");
            return Err(ExitCode::from(INVALID));
        }
        if is_off {
            return Ok(None);
        }
        let token = token(self.token_file).map_err(|error| told(&error, None, INVALID))?;
        let own = Address::of_this_process().map_err(|error| told(&error, Some(error.remedy()), FAILED))?;
        let more = self.places.into_iter().filter_map(|place| match place {
            Place::At(address) => Some(address),
            Place::Off => None,
        });
        let options = AdminOptions {
            addresses: std::iter::once(own).chain(more).collect(),
            token,
            hosts: self.hosts,
            patience: Patience(self.stall_after),
        };
        let started = Admin::start(options, control.clone(), Handle::current());
        started.map(Some).map_err(|error| told(&error, error.remedy(), FAILED))
    }
}

/// The token in a file, or in the environment.
///
/// # Errors
/// When there is one and it cannot be used.
pub fn token(file: Option<PathBuf>) -> Result<Option<Token>, TokenError> {
    match (file, std::env::var(TOKEN_VARIABLE)) {
        (Some(file), _) => Token::from_file(&file).map(Some),
        (None, Ok(token)) => Token::new(&token).map(Some),
        (None, Err(_)) => Ok(None),
    }
}

/// Says what is wrong and what can be done.
pub fn told(error: &dyn std::error::Error, remedy: Option<&str>, code: u8) -> ExitCode {
    eprintln!("error: {}", mask(&chain(error)));
    if let Some(remedy) = remedy {
        eprintln!("  hint: {remedy}");
    }
    ExitCode::from(code)
}
