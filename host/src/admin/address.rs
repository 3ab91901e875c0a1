//! Where an endpoint is, and how a client finds it without being told.

use std::fmt;
use std::fs::{self, DirBuilder, Permissions};
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::str::FromStr;

/// An address to listen at, or to ask.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Address {
    Unix(PathBuf),
    /// `host:port`.
    Tcp(String),
}

/// What `--admin` may say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Place {
    Off,
    At(Address),
}

#[derive(Debug, thiserror::Error)]
pub enum AddressError {
    #[error("`{text}` is no address: write HOST:PORT, PORT (on the loopback interface) or the path of a Unix socket")]
    Syntax { text: String },
    #[error("cannot use the folder `{}` for the agents' sockets", path.display())]
    Folder { path: PathBuf, source: io::Error },
    /// Whoever owns it could answer in an agent's place.
    #[error("the folder `{}` for the agents' sockets belongs to user {owner}", path.display())]
    Foreign { path: PathBuf, owner: u32 },
}

impl AddressError {
    /// What the operator can do about it.
    pub fn remedy(&self) -> &'static str {
        match self {
            Self::Syntax { .. } => {
                "as in `--admin 127.0.0.1:9464`, `--admin 9464` or `--admin /run/wasmflow/agent.sock`"
            }
            Self::Folder { .. } | Self::Foreign { .. } => {
                "set WASMFLOW_RUNTIME_DIR to a folder of your own, or start with `--admin off`"
            }
        }
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unix(path) => write!(f, "{}", path.display()),
            Self::Tcp(address) => f.write_str(address),
        }
    }
}

impl FromStr for Address {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<Self, AddressError> {
        let syntax = || AddressError::Syntax { text: text.into() };
        let plain = text.strip_prefix("http://").unwrap_or(text).trim_end_matches('/');
        if let Some(path) = text.strip_prefix("unix:").or(plain.contains('/').then_some(text)) {
            return Ok(Self::Unix(path.into()));
        }
        if plain.parse::<u16>().is_ok() {
            return Ok(Self::Tcp(format!("127.0.0.1:{plain}")));
        }
        let (host, port) = plain.rsplit_once(':').ok_or_else(syntax)?;
        if host.is_empty() || port.parse::<u16>().is_err() {
            return Err(syntax());
        }
        Ok(Self::Tcp(plain.into()))
    }
}

impl FromStr for Place {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<Self, AddressError> {
        if text == "off" { Ok(Self::Off) } else { text.parse().map(Self::At) }
    }
}

/// The folder of the sockets of this user's agents: not the state folder's, since `wasmflow status` has no pipeline file to find that
/// by, an agent may run several pipelines, and a socket's path must be short.
///
/// `WASMFLOW_RUNTIME_DIR`, else `wasmflow` in the user's runtime folder, else one of the user's own in the folder for temporary files.
pub(super) fn runtime_dir() -> PathBuf {
    let folder = |name: &str| std::env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
    let user = rustix::process::geteuid().as_raw();
    folder("WASMFLOW_RUNTIME_DIR")
        .or_else(|| Some(folder("XDG_RUNTIME_DIR")?.join("wasmflow")))
        .unwrap_or_else(|| std::env::temp_dir().join(format!("wasmflow-{user}")))
}

impl Address {
    /// The socket of this process in the agents' folder, which is made where it is missing, and is nobody else's.
    ///
    /// # Errors
    /// When it cannot be made, or belongs to another user.
    pub fn of_this_process() -> Result<Self, AddressError> {
        let folder = runtime_dir();
        private(&folder)?;
        // Sockets of agents that were killed would pile up.
        Found::look();
        Ok(Self::Unix(folder.join(format!("{}.sock", std::process::id()))))
    }
}

/// Makes a folder that only this user can look into.
pub(super) fn private(folder: &Path) -> Result<(), AddressError> {
    if let Some(parent) = folder.parent() {
        fs::create_dir_all(parent).map_err(at(parent))?;
    }
    match DirBuilder::new().mode(0o700).create(folder) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(at(folder)(error)),
        _ => {}
    }
    // Not through a link: in a folder for all it could lead anywhere.
    let found = fs::symlink_metadata(folder).map_err(at(folder))?;
    if !found.is_dir() {
        return Err(at(folder)(io::ErrorKind::NotADirectory.into()));
    }
    if found.uid() != rustix::process::geteuid().as_raw() {
        return Err(AddressError::Foreign { path: folder.into(), owner: found.uid() });
    }
    if found.mode() & 0o077 != 0 {
        fs::set_permissions(folder, Permissions::from_mode(0o700)).map_err(at(folder))?;
    }
    Ok(())
}

/// Of a file system call on a path.
fn at(path: &Path) -> impl Fn(io::Error) -> AddressError {
    move |source| AddressError::Folder { path: path.into(), source }
}

/// What there is to ask on this machine.
#[derive(Debug)]
pub struct Found {
    pub folder: PathBuf,
    pub addresses: Vec<Address>,
}

impl Found {
    /// The sockets of this user's agents, in the order of their process numbers. Sockets of processes that are no more are removed.
    pub fn look() -> Self {
        let folder = runtime_dir();
        let mut processes = Vec::new();
        for entry in fs::read_dir(&folder).into_iter().flatten().flatten() {
            let name = entry.file_name();
            let Some(process) = name.to_str().and_then(|name| name.strip_suffix(".sock")?.parse::<i32>().ok()) else {
                continue;
            };
            match is_alive(process) {
                true => processes.push(process),
                false => _ = fs::remove_file(entry.path()),
            }
        }
        processes.sort_unstable();
        let socket = |process| Address::Unix(folder.join(format!("{process}.sock")));
        let addresses = processes.into_iter().map(socket).collect();
        Self { folder, addresses }
    }
}

fn is_alive(process: i32) -> bool {
    let id = rustix::process::Pid::from_raw(process);
    id.is_some_and(|id| rustix::process::test_kill_process(id) != Err(rustix::io::Errno::SRCH))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_a_port_a_host_with_a_port_or_a_path() {
        let tcp = |text: &str| Address::Tcp(text.into());
        assert_eq!("9464".parse::<Address>().unwrap(), tcp("127.0.0.1:9464"));
        assert_eq!("localhost:9464".parse::<Address>().unwrap(), tcp("localhost:9464"));
        assert_eq!("[::1]:9464".parse::<Address>().unwrap(), tcp("[::1]:9464"));
        assert_eq!("http://127.0.0.1:9464/".parse::<Address>().unwrap(), tcp("127.0.0.1:9464"));
        for path in ["/run/a.sock", "unix:/run/a.sock"] {
            assert_eq!(path.parse::<Address>().unwrap(), Address::Unix("/run/a.sock".into()));
        }
        for wrong in ["", "localhost", ":9464", "localhost:http", "localhost:99999"] {
            assert!(wrong.parse::<Address>().is_err(), "{wrong}");
        }
        assert_eq!("off".parse::<Place>().unwrap(), Place::Off);
    }

    #[test]
    fn a_folder_for_sockets_is_made_for_this_user_alone() {
        let dir = tempfile::tempdir().unwrap();
        let folder = dir.path().join("a/b");
        private(&folder).unwrap();
        fs::set_permissions(&folder, Permissions::from_mode(0o777)).unwrap();
        private(&folder).unwrap();
        assert_eq!(fs::metadata(&folder).unwrap().mode() & 0o777, 0o700);
        std::os::unix::fs::symlink(&folder, dir.path().join("link")).unwrap();
        assert!(private(&dir.path().join("link")).is_err());
    }
}
