//! A real MariaDB server with a data folder of its own.

use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::OnceLock;
use std::time::Duration;

use anyhow::{Context as _, ensure};

use crate::folder::Folder;
use crate::port::free_port;
use crate::process::{Process, wait_until};
use crate::skip::skip;

const START_LIMIT: Duration = Duration::from_secs(60);

/// A running MariaDB; killed, and its data removed, when dropped. `root` has no password.
#[derive(Debug)]
pub struct MariaDb {
    folder: Folder,
    port: u16,
    process: Process,
}

impl MariaDb {
    /// The server that all tests of this process share; a test keeps to databases and users of its own names.
    ///
    /// `None` means that MariaDB is not installed: the skip has been announced and the caller returns.
    ///
    /// # Panics
    /// When it is installed and does not start.
    pub fn shared() -> Option<&'static Self> {
        static SHARED: OnceLock<Option<MariaDb>> = OnceLock::new();
        let shared = SHARED.get_or_init(|| is_installed().then(|| Self::fresh().expect("the shared database starts")));
        if shared.is_none() {
            skip_without_database();
        }
        shared.as_ref()
    }

    /// A server of the caller's own, to stop and start; `None` as for [`shared`](Self::shared).
    ///
    /// # Panics
    /// When it is installed and does not start.
    pub fn own() -> Option<Self> {
        if !is_installed() {
            skip_without_database();
            return None;
        }
        Some(Self::fresh().expect("the database starts"))
    }

    fn fresh() -> anyhow::Result<Self> {
        let folder = Folder::new("mariadb");
        make_data(&folder)?;
        let port = free_port();
        let process = start_server(&folder, port)?;
        let database = Self { folder, port, process };
        database.wait_until_serving()?;
        Ok(database)
    }

    /// `host:port`, as a pipeline's `allow.net` and URL want it.
    pub fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// Stops it as a crash would.
    pub fn kill(&mut self) {
        self.process.kill();
    }

    /// Starts it again after [`kill`](Self::kill), at the same address with the same data.
    ///
    /// # Errors
    /// When it does not serve in time.
    pub fn restart(&mut self) -> anyhow::Result<()> {
        self.process = start_server(&self.folder, self.port)?;
        self.wait_until_serving()
    }

    /// Runs SQL statements as root and gives what they print, one row a line, columns separated by tabs.
    ///
    /// # Errors
    /// When the server refuses a statement.
    pub fn sql(&self, statements: &str) -> anyhow::Result<String> {
        let output = self.client().arg("-e").arg(statements).output().context("cannot start `mariadb`")?;
        ensure!(output.status.success(), "{statements}: {}", String::from_utf8_lossy(&output.stderr).trim());
        Ok(String::from_utf8(output.stdout)?)
    }

    fn client(&self) -> Command {
        let mut command = Command::new("mariadb");
        command.args([
            "--no-defaults",
            "--batch",
            "--skip-column-names",
            "--default-character-set=utf8mb4",
            "--user=root",
        ]);
        command.arg(option("socket", &self.folder.join("sock"))).stdin(Stdio::null());
        command
    }

    fn wait_until_serving(&self) -> anyhow::Result<()> {
        let serving = wait_until(START_LIMIT, || self.sql("SELECT 1").is_ok());
        let log = || std::fs::read_to_string(self.folder.join("server.log")).unwrap_or_default();
        ensure!(serving, "MariaDB does not serve at {} after {START_LIMIT:?}:\n{}", self.address(), log());
        Ok(())
    }
}

fn skip_without_database() {
    skip("there is no `mariadbd`");
}

/// Debian keeps `mariadbd` in sbin, which is not on everybody's path.
fn program(name: &str) -> Command {
    let path = std::env::var("PATH").unwrap_or_default();
    let folders = path.split(':').chain(["/usr/sbin", "/sbin"]);
    let found = folders.map(|folder| Path::new(folder).join(name)).find(|file| file.is_file());
    Command::new(found.unwrap_or_else(|| name.into()))
}

fn is_installed() -> bool {
    let version = program("mariadbd").arg("--version").stdout(Stdio::null()).status();
    version.is_ok_and(|status| status.success())
}

fn option(name: &str, path: &Path) -> String {
    format!("--{name}={}", path.display())
}

fn make_data(folder: &Folder) -> anyhow::Result<()> {
    let mut command = program("mariadb-install-db");
    command.args(["--no-defaults", "--auth-root-authentication-method=normal", "--skip-test-db", "--user=root"]);
    let output = command.arg(option("datadir", &folder.join("data"))).output()?;
    ensure!(output.status.success(), "cannot make a database: {}", String::from_utf8_lossy(&output.stderr));
    Ok(())
}

fn start_server(folder: &Folder, port: u16) -> anyhow::Result<Process> {
    let log = std::fs::File::options().create(true).append(true).open(folder.join("server.log"))?;
    let mut command = program("mariadbd");
    // A small server that need not survive a power cut: what it has committed survives the kill of the process.
    command.args(["--no-defaults", "--user=root", "--bind-address=127.0.0.1", "--skip-log-bin"]);
    command.args([
        "--innodb-flush-log-at-trx-commit=2",
        "--innodb-buffer-pool-size=64M",
        "--character-set-server=utf8mb4",
    ]);
    command.arg(format!("--port={port}")).arg(option("datadir", &folder.join("data")));
    command.arg(option("socket", &folder.join("sock"))).arg(option("pid-file", &folder.join("pid")));
    command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
    Process::start(command)
}
