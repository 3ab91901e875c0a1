//! A table of 1,000,000 rows in a real MariaDB: to `null`, to the console, to Kafka; beside a native client that reads the same rows.

use std::process::{Command, Stdio};

use anyhow::{Context as _, ensure};
use mysql_async::Row;
use mysql_async::prelude::Queryable as _;
use wasmflow_tests::agent::{PipelineFile, quiet_run};
use wasmflow_tests::broker::KafkaBroker;
use wasmflow_tests::database::MariaDb;
use wasmflow_tests::pipelines;
use wasmflow_tests::run::{Account, run};

use crate::Measuring;
use crate::contest::{Contest, Sample};
use crate::kafka::{produced, sent};
use crate::report::Report;

const ROWS: u64 = 1_000_000;

/// Of the raw producer loop, which is through with as many as there are rows before it can be looked at.
const PRODUCED: u64 = 3 * ROWS;

/// Of a row as JSON, about.
const BODY_BYTES: usize = 130;

pub fn measure(report: &mut Report, measuring: &Measuring) -> anyhow::Result<()> {
    let Some(database) = MariaDb::shared() else { return Ok(()) };
    fill(database)?;
    // Compiled for the cache here, and not in the first run.
    run(quiet_run(&pipeline(database, "one", pipelines::NOWHERE)))?;
    let mut contest = Contest::turning(measuring.runs);
    let native = contest.reference("native async client (mysql_async), one query", |_| read(database));
    contest.line("1,000,000 rows to null", "rows/s", Some(native), |_| cost(database, pipelines::NOWHERE));
    contest.line("1,000,000 rows to the console", "rows/s", Some(native), |_| cost(database, pipelines::CONSOLE));
    let program = contest.reference("C client (mariadb --quick)", |_| c_client(database));
    contest.line("1,000,000 rows to null (beside the C client)", "rows/s", Some(program), |_| {
        cost(database, pipelines::NOWHERE)
    });
    if let Some(broker) = KafkaBroker::shared() {
        let raw =
            contest.reference("raw producer loop fed from memory", |_| produced(broker, PRODUCED, BODY_BYTES, &[]));
        contest.line("1,000,000 rows to Kafka", "rows/s", Some(raw), |_| {
            sent(broker, ROWS, |sink| pipeline(database, "million", sink))
        });
    }
    contest.run(report)
}

fn fill(database: &MariaDb) -> anyhow::Result<()> {
    let table = "(id INT PRIMARY KEY AUTO_INCREMENT, name VARCHAR(80) NOT NULL, amount DECIMAL(10,2) NOT NULL, at DATETIME NOT NULL)";
    let rows = |last: u64| {
        format!(
            "(name, amount, at) SELECT RPAD(CONCAT('student ', seq), 50, 'x'), seq / 100, \
             '2026-01-01' + INTERVAL seq SECOND FROM seq_1_to_{last}"
        )
    };
    database.sql(&format!(
        "CREATE DATABASE bench; USE bench; CREATE TABLE million {table}; INSERT INTO million {}; \
         CREATE TABLE one {table}; INSERT INTO one {}; ANALYZE TABLE million",
        rows(ROWS),
        rows(1)
    ))?;
    Ok(())
}

/// What all rows cost beyond the first, whose cost is that of starting and logging in.
fn cost(database: &MariaDb, sink: &str) -> anyhow::Result<Sample> {
    let one = run(quiet_run(&pipeline(database, "one", sink)))?;
    let all = run(quiet_run(&pipeline(database, "million", sink)))?;
    Ok(Sample::rate(ROWS as f64, &all.beyond(one)))
}

fn pipeline(database: &MariaDb, table: &str, sink: &str) -> PipelineFile {
    let address = database.address();
    PipelineFile::new(
        "mysql",
        &format!(
            r#"{sink}
    [sources.rows]
    plugin = "mysql"
    channels = ["events"]
    config = {{ url = "mysql://root@{address}/bench", table = "{table}", follow = false }}
    allow = {{ net = ["{address}"] }}
"#
        ),
    )
}

/// Reads all rows and holds none.
fn read(database: &MariaDb) -> anyhow::Result<Sample> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let url = format!("mysql://root@{}/bench", database.address());
    runtime.block_on(async {
        let options = mysql_async::Opts::from_url(&url)?;
        let mut client = mysql_async::Conn::new(options).await?;
        let account = Account::open()?;
        let mut rows = 0;
        let mut result = client.exec_iter("SELECT * FROM million ORDER BY id", ()).await?;
        result
            .for_each(|row: Row| {
                std::hint::black_box(row);
                rows += 1;
            })
            .await?;
        ensure!(rows == ROWS, "{rows} rows");
        let cost = account.close()?;
        client.disconnect().await?;
        Ok(Sample { resident: None, ..Sample::rate(ROWS as f64, &cost) })
    })
}

/// `--quick` takes row by row, as we do.
fn c_client(database: &MariaDb) -> anyhow::Result<Sample> {
    let (host, port) =
        database.address().split_once(':').map(|(a, b)| (a.to_owned(), b.to_owned())).context("no port")?;
    let client = |table: &str| {
        let mut command = Command::new("mariadb");
        command.args(["--no-defaults", "--batch", "--quick", "--user=root", "--host", &host, "--port", &port, "bench"]);
        command.arg("-e").arg(format!("SELECT * FROM {table} ORDER BY id")).stdin(Stdio::null());
        command
    };
    let one = run(client("one"))?;
    Ok(Sample { resident: None, ..Sample::rate(ROWS as f64, &run(client("million"))?.beyond(one)) })
}
