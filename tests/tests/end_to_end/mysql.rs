//! The acceptance set of the `mysql` source, acceptance.md 6.10: each test is one of its nine points.

use std::time::Duration;

use wasmflow_tests::agent::PipelineFile;
use wasmflow_tests::database::MariaDb;
use wasmflow_tests::pipelines::CONSOLE;

const LIMIT: Duration = Duration::from_secs(30);
const FOUR: [&str; 4] = ["1,zhangsan,", "2,lisi,", "3,wangwu,", "4,zhaoliu,"];

/// A database of the test's own on the shared server, with an empty table `student`.
struct Students<'d> {
    database: &'d MariaDb,
    name: &'static str,
}

impl<'d> Students<'d> {
    fn empty(database: &'d MariaDb, name: &'static str) -> anyhow::Result<Self> {
        database.sql(&format!(
            "CREATE DATABASE {name}; CREATE TABLE {name}.student (id INT AUTO_INCREMENT PRIMARY KEY, name TEXT)"
        ))?;
        Ok(Self { database, name })
    }

    fn with_four(database: &'d MariaDb, name: &'static str) -> anyhow::Result<Self> {
        let students = Self::empty(database, name)?;
        students.insert("(1, 'zhangsan'), (2, 'lisi'), (3, 'wangwu'), (4, 'zhaoliu')")?;
        Ok(students)
    }

    fn insert(&self, rows: &str) -> anyhow::Result<()> {
        self.database.sql(&format!("INSERT INTO {}.student (id, name) VALUES {rows}", self.name)).map(drop)
    }

    /// A source of this table; `config` are further keys.
    fn source(&self, stage: &str, config: &str) -> String {
        let address = self.database.address();
        let user = if config.contains("user =") { "" } else { r#"user = "root", "# };
        format!(
            r#"
            [sources.{stage}]
            plugin = "mysql"
            channels = ["events"]
            config = {{ url = "mysql://{address}/{}", {user}poll_interval = "50ms", {config} }}
            allow = {{ net = ["{address}"] }}
            "#,
            self.name
        )
    }

    /// A pipeline from this table to the console.
    fn pipeline(&self, config: &str) -> PipelineFile {
        PipelineFile::new(self.name, &format!("{CONSOLE}{}", self.source("students", config)))
    }
}

const ONE_OFF: &str = r#"table = "student", format = "flume-sql", follow = false"#;
const FOLLOWING: &str = r#"table = "student", format = "flume-sql""#;

#[test]
fn the_four_rows_reach_the_logger_as_the_seed_shows_them() -> anyhow::Result<()> {
    let Some(database) = MariaDb::shared() else { return Ok(()) };
    let students = Students::with_four(database, "four")?;
    let logger = CONSOLE.replace("prefix-suffix", "logger").replace(r#"config = { prefix = "" }"#, "");
    let pipeline = PipelineFile::new("four", &format!("{logger}{}", students.source("students", ONE_OFF)));
    let lines = pipeline.run().expect_done(LIMIT);
    assert_eq!(lines.len(), 4, "{lines:?}");
    assert!(lines[0].starts_with("Event: { headers:{} body: 31 2C 7A 68 61 6E 67 73 61 6E 2C"), "{}", lines[0]);
    for (line, row) in lines.iter().zip(FOUR) {
        assert!(line.ends_with(&format!(" {row} }}")), "{line}");
    }
    Ok(())
}

#[test]
fn a_fifth_row_gives_only_the_fifth() -> anyhow::Result<()> {
    let Some(database) = MariaDb::shared() else { return Ok(()) };
    let students = Students::with_four(database, "fifth")?;
    let pipeline = students.pipeline(ONE_OFF);
    assert_eq!(pipeline.run().expect_done(LIMIT), FOUR);
    students.insert("(5, 'sunqi')")?;
    assert_eq!(pipeline.run().expect_done(LIMIT), ["5,sunqi,"]);
    Ok(())
}

#[test]
fn gaps_in_the_ids_and_more_digits_repeat_and_skip_nothing() -> anyhow::Result<()> {
    let Some(database) = MariaDb::shared() else { return Ok(()) };
    let students = Students::empty(database, "gaps")?;
    let pipeline = students.pipeline(FOLLOWING);
    let agent = pipeline.run();
    let ids = [1, 5, 9, 10, 11, 120];
    for (arrived, id) in ids.iter().enumerate() {
        students.insert(&format!("({id}, 'n')"))?;
        agent.expect_lines(arrived + 1, LIMIT);
    }
    // Four more polls, in which a forgotten position would bring rows again.
    std::thread::sleep(Duration::from_millis(250));
    assert_eq!(agent.stop().stdout, ids.map(|id| format!("{id},n,")));
    Ok(())
}

#[test]
fn a_kill_between_any_two_steps_loses_no_row() -> anyhow::Result<()> {
    let Some(database) = MariaDb::shared() else { return Ok(()) };
    let students = Students::empty(database, "killed_between")?;
    let pipeline = students.pipeline(FOLLOWING);
    let mut arrived = Vec::new();
    for id in 1..=8 {
        let agent = pipeline.run();
        students.insert(&format!("({id}, 'n')"))?;
        // Killed before the row can have arrived, just when it has, and after its position must have been kept.
        match id % 4 {
            0 => {}
            1 => drop(agent.expect_lines(1, LIMIT)),
            2 => std::thread::sleep(Duration::from_millis(30 * id)),
            _ => drop((agent.expect_lines(1, LIMIT), std::thread::sleep(Duration::from_millis(200)))),
        }
        arrived.extend(agent.stdout().all());
        agent.kill();
    }
    let agent = pipeline.run();
    agent.stdout().wait_for(0, "8,n,", Duration::from_secs(5));
    arrived.extend(agent.stop().stdout);
    let mut distinct = arrived.clone();
    distinct.sort_unstable();
    distinct.dedup();
    assert_eq!(distinct, (1..=8).map(|id| format!("{id},n,")).collect::<Vec<_>>(), "in order of arrival: {arrived:?}");
    Ok(())
}

#[test]
fn a_thousand_rows_pass_in_pages_of_a_hundred() -> anyhow::Result<()> {
    let Some(database) = MariaDb::shared() else { return Ok(()) };
    let students = Students::empty(database, "thousand")?;
    database.sql("USE thousand; INSERT INTO student (name) SELECT CONCAT('n', seq) FROM seq_1_to_1000")?;
    let source = students.source("students", &format!("{ONE_OFF}, page_rows = 100"));
    let small = CONSOLE.replace("type = \"memory\"", "type = \"memory\"\ncapacity_events = 100");
    let pipeline = PipelineFile::new("thousand", &format!("{small}{source}batch_events = 100\n"));
    let lines = pipeline.run().expect_done(LIMIT);
    assert_eq!(lines, (1..=1000).map(|id| format!("{id},n{id},")).collect::<Vec<_>>());
    Ok(())
}

#[test]
fn two_sources_on_two_databases_do_not_mix() -> anyhow::Result<()> {
    let Some(database) = MariaDb::shared() else { return Ok(()) };
    let (left, right) = (Students::with_four(database, "left_one")?, Students::empty(database, "right_one")?);
    right.insert("(1, 'one'), (2, 'two')")?;
    let sources = [left.source("left", ONE_OFF), right.source("right", ONE_OFF)].concat();
    let pipeline = PipelineFile::new("two-databases", &format!("{CONSOLE}{sources}"));
    let mut lines = pipeline.run().expect_done(LIMIT);
    lines.sort_unstable();
    let mut expected = [FOUR.as_slice(), &["1,one,", "2,two,"]].concat();
    expected.sort_unstable();
    assert_eq!(lines, expected);
    Ok(())
}

#[test]
fn commas_quotes_newlines_null_and_chinese_arrive_as_they_are() -> anyhow::Result<()> {
    let Some(database) = MariaDb::shared() else { return Ok(()) };
    let students = Students::empty(database, "awkward")?;
    students.insert(r#"(1, 'a,b'), (2, 'say "hi"'), (3, 'two\nlines'), (4, NULL), (5, '张三')"#)?;
    let lines = students.pipeline(r#"table = "student", format = "json", follow = false"#).run().expect_done(LIMIT);
    let rows: Vec<serde_json::Value> = lines.iter().map(|line| serde_json::from_str(line)).collect::<Result<_, _>>()?;
    let names: Vec<_> = rows.iter().map(|row| row["name"].as_str()).collect();
    assert_eq!(names, [Some("a,b"), Some("say \"hi\""), Some("two\nlines"), None, Some("张三")]);
    assert!(rows[3]["name"].is_null());
    let csv = students.pipeline(r#"table = "student", format = "csv", follow = false"#).run().expect_done(LIMIT);
    assert_eq!(csv, ["1,\"a,b\"", "2,\"say \"\"hi\"\"\"", "3,\"two", "lines\"", "4,", "5,张三"]);
    Ok(())
}

#[test]
fn every_type_of_column_arrives_as_the_server_shows_it() -> anyhow::Result<()> {
    let Some(database) = MariaDb::shared() else { return Ok(()) };
    let students = Students::empty(database, "every_type")?;
    let (short, long) = (format!("\"{}\"", "v".repeat(251)), format!("\"{}\"", "ü".repeat(40_000)));
    let columns: [(&str, &str, &str, &str); 28] = [
        ("t", "TINYINT", "-128", "-128"),
        ("ut", "TINYINT UNSIGNED", "255", "255"),
        ("s", "SMALLINT", "-32768", "-32768"),
        ("us", "SMALLINT UNSIGNED", "65535", "65535"),
        ("m", "MEDIUMINT", "-8388608", "-8388608"),
        ("um", "MEDIUMINT UNSIGNED", "16777215", "16777215"),
        ("i", "INT", "-2147483648", "-2147483648"),
        ("ui", "INT UNSIGNED", "4294967295", "4294967295"),
        ("b", "BIGINT", "-9223372036854775808", "-9223372036854775808"),
        ("ub", "BIGINT UNSIGNED", "18446744073709551615", "18446744073709551615"),
        ("d", "DECIMAL(30,2)", "-0.05", "-0.05"),
        ("z", "DECIMAL(5,2) ZEROFILL", "1.5", r#""001.50""#),
        ("f", "FLOAT", "0.5", "0.5"),
        ("g", "DOUBLE", "-1e300", "-1e300"),
        ("y", "YEAR", "2026", "2026"),
        ("x", "BIT(10)", "b'1000000001'", "513"),
        ("dt", "DATE", "'2024-02-29'", r#""2024-02-29""#),
        ("ts", "TIMESTAMP", "'2024-02-29 00:00:00'", r#""2024-02-29 00:00:00""#),
        ("at", "DATETIME(3)", "'2024-02-29 01:02:03.004'", r#""2024-02-29 01:02:03.004""#),
        ("tm", "TIME(6)", "'-838:59:58.000001'", r#""-838:59:58.000001""#),
        ("e", "ENUM('one', 'two')", "'two'", r#""two""#),
        ("l", "SET('one', 'two')", "'one,two'", r#""one,two""#),
        ("j", "JSON", r#"'{"a": 1}'"#, r#""{\"a\": 1}""#),
        ("v", "VARCHAR(300)", "REPEAT('v', 251)", &short),
        ("c", "LONGTEXT", "REPEAT('ü', 40000)", &long),
        ("r", "VARBINARY(9)", "'abc'", r#"{"base64":"YWJj"}"#),
        ("p", "POINT", "NULL", "null"),
        ("q", "BLOB", "''", r#"{"base64":""}"#),
    ];
    // Each column once more without a value.
    let all = columns.map(|(name, kind, ..)| format!("ADD {name} {kind} NULL, ADD {name}_null {kind} NULL")).join(", ");
    let values = columns.map(|(name, _, value, _)| format!("{name} = {value}")).join(", ");
    database.sql(&format!(
        "USE every_type; SET time_zone = '+00:00'; ALTER TABLE student {all}; INSERT INTO student SET id = 1, {values}"
    ))?;
    let expected = columns.map(|(name, _, _, json)| format!(r#""{name}":{json},"{name}_null":null"#)).join(",");
    let lines = students.pipeline(r#"table = "student", follow = false"#).run().expect_done(LIMIT);
    assert_eq!(lines, [format!(r#"{{"id":1,"name":null,{expected}}}"#)]);
    Ok(())
}

/// Each page but the last is asked for while the one before goes out.
#[test]
fn equal_cursors_come_once_wherever_pages_and_batches_end() -> anyhow::Result<()> {
    let Some(database) = MariaDb::shared() else { return Ok(()) };
    let students = Students::empty(database, "groups")?;
    // Groups of all sizes, in pages of 7 and batches of 3.
    database.sql(
        "USE groups; ALTER TABLE student ADD team INT NOT NULL, ADD title VARCHAR(9) NOT NULL, ADD INDEX (team), ADD INDEX (title); \
         INSERT INTO student (name, team, title) SELECT CONCAT('n', seq), seq DIV (1 + seq MOD 9), \
         LPAD(seq DIV (1 + seq MOD 9), 5, '0') FROM seq_1_to_500",
    )?;
    for column in ["team", "title"] {
        let source = students.source(
            "students",
            &format!(r#"table = "student", columns = ["id"], cursor_column = "{column}", format = "csv", follow = false, page_rows = 7"#),
        );
        let pipeline = PipelineFile::new("groups", &format!("{CONSOLE}{source}batch_events = 3\n"));
        let mut ids: Vec<u32> =
            pipeline.run().expect_done(LIMIT).iter().map(|id| id.parse()).collect::<Result<_, _>>()?;
        ids.sort_unstable();
        assert_eq!(ids, (1..=500).collect::<Vec<_>>(), "{column}");
    }
    Ok(())
}

#[test]
fn a_database_that_is_down_at_start_or_in_the_middle_delays_and_loses_nothing() -> anyhow::Result<()> {
    let Some(mut database) = MariaDb::own() else { return Ok(()) };
    let pipeline = Students::with_four(&database, "down")?.pipeline(FOLLOWING);
    database.kill();
    let agent = pipeline.run();
    // The log names the stage and where it looked, and the agent goes on trying.
    agent.expect_log("students", LIMIT);
    agent.expect_log(&database.address(), LIMIT);
    database.restart()?;
    agent.expect_lines(4, LIMIT);
    database.kill();
    std::thread::sleep(Duration::from_millis(500));
    database.restart()?;
    database.sql("INSERT INTO down.student (id, name) VALUES (5, 'sunqi')")?;
    agent.expect_lines(5, LIMIT);
    let ended = agent.stop();
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    assert_eq!(ended.stdout, [FOUR.as_slice(), &["5,sunqi,"]].concat());
    Ok(())
}

#[test]
fn a_query_of_ones_own_keeps_its_upper_case_where() -> anyhow::Result<()> {
    let Some(database) = MariaDb::shared() else { return Ok(()) };
    let students = Students::with_four(database, "own_query")?;
    students.insert("(9, 'zhu'), (10, 'zou'), (11, 'an')")?;
    let query = r#"query = "SELECT id, name FROM student WHERE name LIKE 'z%' AND id > :cursor ORDER BY id""#;
    let pipeline = students.pipeline(&format!(r#"{query}, format = "flume-sql", follow = false, start_from = 0"#));
    assert_eq!(pipeline.run().expect_done(LIMIT), ["1,zhangsan,", "4,zhaoliu,", "9,zhu,", "10,zou,"]);
    students.insert("(12, 'zeng')")?;
    assert_eq!(pipeline.run().expect_done(LIMIT), ["12,zeng,"]);
    Ok(())
}

#[test]
fn a_refused_password_is_said_and_does_not_appear_in_the_log() -> anyhow::Result<()> {
    let Some(database) = MariaDb::shared() else { return Ok(()) };
    let students = Students::with_four(database, "secret")?;
    database.sql(
        "CREATE USER flume@'127.0.0.1' IDENTIFIED BY 'right-one'; GRANT SELECT ON secret.* TO flume@'127.0.0.1'",
    )?;
    let login = format!(r#"{ONE_OFF}, user = "flume", password = {{ env = "DATABASE_PASSWORD" }}"#);
    let pipeline = students.pipeline(&login);
    let run = |password| {
        let options =
            wasmflow_tests::agent::Options { env: vec![("DATABASE_PASSWORD", password)], ..Default::default() };
        wasmflow_tests::agent::Agent::run_with(pipeline.path(), &options)
    };
    let refused = run("canary-4711");
    refused.expect_log("students", LIMIT);
    refused.expect_log("flume", LIMIT);
    let log = refused.stop().stderr;
    assert!(!log.contains("canary-4711"), "{log}");
    assert_eq!(run("right-one").expect_done(LIMIT), FOUR);
    Ok(())
}
