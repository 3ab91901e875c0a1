//! A real Apache Kafka: one node that is broker and controller, started from the jars that `make servers` has fetched.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use rdkafka::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rustix::process::Signal;

use crate::folder::Folder;
use crate::port::free_port;
use crate::process::{Process, wait_until};
use crate::proxy::Proxy;
use crate::skip::skip;

/// Time for a Java process on a busy machine to start and serve.
const START_LIMIT: Duration = Duration::from_secs(90);

/// The user that the password listener knows, and its password.
pub const USER: (&str, &str) = ("alice", "alice-secret");

/// A running Kafka node; killed, and its data removed, when dropped.
#[derive(Debug)]
pub struct KafkaBroker {
    folder: Folder,
    jars: PathBuf,
    port: u16,
    password_port: u16,
    process: Process,
}

impl KafkaBroker {
    /// The broker that all tests of this process share; a test keeps to topics and groups of its own names.
    ///
    /// `None` means that Kafka is not installed: the skip has been announced and the caller returns.
    ///
    /// # Panics
    /// When it is installed and does not start.
    pub fn shared() -> Option<&'static Self> {
        static SHARED: OnceLock<Option<KafkaBroker>> = OnceLock::new();
        let shared = SHARED.get_or_init(|| installed_jars().map(|_| Self::fresh().expect("the shared broker starts")));
        if shared.is_none() {
            skip_without_kafka();
        }
        shared.as_ref()
    }

    /// A broker of the caller's own, to stop and kill; `None` as for [`shared`](Self::shared).
    ///
    /// # Panics
    /// When it is installed and does not start.
    pub fn own() -> Option<Self> {
        if installed_jars().is_none() {
            skip_without_kafka();
            return None;
        }
        Some(Self::fresh().expect("the broker starts"))
    }

    /// A broker of the caller's own that goes by access rules: what no rule is about is allowed, and clients without a name may do
    /// everything. `None` as for [`shared`](Self::shared).
    ///
    /// # Panics
    /// When it is installed and does not start.
    pub fn guarded() -> Option<Self> {
        if installed_jars().is_none() {
            skip_without_kafka();
            return None;
        }
        Some(Self::fresh_with(AUTHORIZER).expect("the broker starts"))
    }

    /// A broker of the caller's own whose clients with a password are told to find it at `proxy`. `None` as for
    /// [`shared`](Self::shared).
    ///
    /// # Panics
    /// When it is installed and does not start.
    pub fn behind(proxy: &Proxy) -> Option<Self> {
        if installed_jars().is_none() {
            skip_without_kafka();
            return None;
        }
        let listeners = format!("advertised.listeners=PLAINTEXT://127.0.0.1:{{port}},PASSWORD://{}\n", proxy.address());
        let broker = Self::fresh_with(&listeners).expect("the broker starts");
        proxy.lead_to(broker.password_address());
        Some(broker)
    }

    fn fresh() -> anyhow::Result<Self> {
        Self::fresh_with("")
    }

    fn fresh_with(more_settings: &str) -> anyhow::Result<Self> {
        let jars = installed_jars().context("Kafka's jars are not in the cache")?;
        let folder = Folder::new("kafka");
        let (port, password_port) = (free_port(), free_port());
        let settings = folder.write(
            "server.properties",
            settings(folder.path(), port, password_port) + &more_settings.replace("{port}", &port.to_string()),
        );
        format_storage(&jars, &folder, &settings)?;
        let process = start_node(&jars, &folder)?;
        let broker = Self { folder, jars, port, password_port, process };
        broker.wait_until_serving()?;
        Ok(broker)
    }

    /// Where it listens, as a pipeline's `bootstrap.servers`.
    pub fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// Where it listens for clients that name [`USER`] by SASL/PLAIN.
    pub fn password_address(&self) -> String {
        format!("127.0.0.1:{}", self.password_port)
    }

    /// Stops it as a crash would. Records that were acknowledged are in the kernel's page cache and survive.
    pub fn kill(&mut self) {
        self.process.kill();
    }

    /// Starts it again after [`kill`](Self::kill), at the same address with the same data.
    ///
    /// # Errors
    /// When it does not serve in time.
    pub fn restart(&mut self) -> anyhow::Result<()> {
        self.process = start_node(&self.jars, &self.folder)?;
        self.wait_until_serving()
    }

    /// Makes it hang with its connections open, as a broker on an overloaded machine.
    pub fn freeze(&self) {
        self.process.signal(Signal::STOP);
    }

    /// Lets it go on after [`freeze`](Self::freeze).
    pub fn thaw(&self) {
        self.process.signal(Signal::CONT);
    }

    /// Lets the client of this id produce no more than so many bytes a second, on an average.
    ///
    /// # Errors
    /// When the broker does not take the quota.
    pub fn limit_client(&self, client: &str, bytes_a_second: u64) -> anyhow::Result<()> {
        let mut command = java(&self.jars, "-Xmx128m");
        command.args(["kafka.admin.ConfigCommand", "--alter", "--entity-type", "clients", "--entity-name", client]);
        command.args(["--bootstrap-server", &self.address()]);
        let output = command.arg("--add-config").arg(format!("producer_byte_rate={bytes_a_second}")).output()?;
        ensure!(output.status.success(), "no quota: {}", String::from_utf8_lossy(&output.stderr));
        Ok(())
    }

    fn wait_until_serving(&self) -> anyhow::Result<()> {
        let probe: BaseConsumer = ClientConfig::new().set("bootstrap.servers", self.address()).create()?;
        let serving = wait_until(START_LIMIT, || {
            probe.fetch_metadata(None, Duration::from_secs(1)).is_ok_and(|cluster| !cluster.brokers().is_empty())
        });
        let log = || std::fs::read_to_string(self.folder.join("server.log")).unwrap_or_default();
        ensure!(serving, "Kafka does not serve at {} after {START_LIMIT:?}:\n{}", self.address(), log());
        Ok(())
    }
}

/// The node speaks to itself without a name, too.
const AUTHORIZER: &str = "\
authorizer.class.name=org.apache.kafka.metadata.authorizer.StandardAuthorizer
allow.everyone.if.no.acl.found=true
super.users=User:ANONYMOUS
";

fn skip_without_kafka() {
    skip("Kafka's jars are not in the cache, or there is no `java`");
}

/// The folder of jars that `tests/servers/install.sh` fills, when it is there and Java can run it.
fn installed_jars() -> Option<PathBuf> {
    static JARS: OnceLock<Option<PathBuf>> = OnceLock::new();
    JARS.get_or_init(|| {
        let folder = match std::env::var_os("WASMFLOW_KAFKA_JARS") {
            Some(folder) => PathBuf::from(folder),
            None => cache_folder()?.join(format!("wasmflow/kafka-{}", version())),
        };
        let java = Command::new("java").arg("-version").stderr(Stdio::null()).status();
        (folder.is_dir() && java.is_ok_and(|status| status.success())).then_some(folder)
    })
    .clone()
}

fn cache_folder() -> Option<PathBuf> {
    let home = || std::env::var_os("HOME").map(|home| Path::new(&home).join(".cache"));
    std::env::var_os("XDG_CACHE_HOME").filter(|folder| !folder.is_empty()).map(PathBuf::from).or_else(home)
}

/// The version is stated once, in the file that Maven reads.
fn version() -> &'static str {
    let pom = include_str!("../servers/pom.xml");
    let after = pom.split("<artifactId>kafka_2.13</artifactId>").nth(1).expect("pom.xml names Kafka");
    after.split(['<', '>']).nth(2).expect("pom.xml gives Kafka's version")
}

fn java(jars: &Path, heap: &str) -> Command {
    let mut command = Command::new("java");
    command.args([heap, "-XX:+UseSerialGC", "-Dorg.slf4j.simpleLogger.defaultLogLevel=warn", "-cp"]);
    command.arg(jars.join("*")).stdin(Stdio::null());
    command
}

fn format_storage(jars: &Path, folder: &Folder, settings: &Path) -> anyhow::Result<()> {
    let mut command = java(jars, "-Xmx128m");
    command.args(["kafka.tools.StorageTool", "format", "--cluster-id", "AAAAAAAAAAAAAAAAAAAAAQ", "--config"]);
    let output = command.arg(settings).output()?;
    ensure!(
        output.status.success(),
        "cannot format {}: {}",
        folder.path().display(),
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(())
}

fn start_node(jars: &Path, folder: &Folder) -> anyhow::Result<Process> {
    let log = std::fs::File::options().create(true).append(true).open(folder.join("server.log"))?;
    let mut command = java(jars, "-Xmx512m");
    command.arg("kafka.Kafka").arg(folder.join("server.properties")).stdout(log.try_clone()?).stderr(log);
    Process::start(command)
}

/// One node with small internal topics, so that it starts fast and fits beside everything else on two cores.
fn settings(folder: &Path, port: u16, password_port: u16) -> String {
    let controller = free_port();
    let (user, password) = USER;
    format!(
        "\
process.roles=broker,controller
node.id=1
controller.quorum.voters=1@127.0.0.1:{controller}
controller.listener.names=CONTROLLER
listeners=PLAINTEXT://127.0.0.1:{port},PASSWORD://127.0.0.1:{password_port},CONTROLLER://127.0.0.1:{controller}
advertised.listeners=PLAINTEXT://127.0.0.1:{port},PASSWORD://127.0.0.1:{password_port}
listener.security.protocol.map=PLAINTEXT:PLAINTEXT,PASSWORD:SASL_PLAINTEXT,CONTROLLER:PLAINTEXT
inter.broker.listener.name=PLAINTEXT
sasl.enabled.mechanisms=PLAIN
listener.name.password.plain.sasl.jaas.config=org.apache.kafka.common.security.plain.PlainLoginModule required user_{user}=\"{password}\";
log.dirs={data}
auto.create.topics.enable=false
num.partitions=1
offsets.topic.num.partitions=4
offsets.topic.replication.factor=1
transaction.state.log.num.partitions=4
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
share.coordinator.state.topic.num.partitions=1
share.coordinator.state.topic.replication.factor=1
share.coordinator.state.topic.min.isr=1
group.initial.rebalance.delay.ms=0
log.cleaner.dedupe.buffer.size=16777216
",
        data = folder.join("data").display(),
    )
}
