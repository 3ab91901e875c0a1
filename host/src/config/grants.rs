//! What a stage is allowed, and what its plugin will ask for.

use std::path::Path;

use toml::de::DeTable;

use super::check::{Surroundings, named};
use super::diagnostic::{Diagnostic, nearest_hint};
use super::file::{AllowTable, PipelineFile, parse_host_port};
use super::pipeline::{ConnectionName, DirGrant, Grants};
use super::read::{At, entry};
use super::stage::StageTable;
use crate::plugin::Need;

/// The grants of a stage as trusted.
pub fn trusted(allow: Option<&At<AllowTable>>, around: Surroundings<'_>) -> Grants {
    let Some(allow) = allow.map(|at| &at.value) else { return Grants::default() };
    let texts =
        |list: &Option<At<Vec<At<String>>>>| list.iter().flat_map(|at| &at.value).map(|at| at.value.clone()).collect();
    let dirs = allow.dirs.iter().flat_map(|at| &at.value).filter_map(|dir| {
        let path = &dir.value.path.as_ref()?.value;
        Some(DirGrant {
            path: around.base_dir.join(path),
            as_written: path.clone(),
            write: dir.value.write.as_ref().is_some_and(|at| at.value),
        })
    });
    Grants {
        net: allow.net.iter().flat_map(|at| &at.value).map(|at| at.value.clone()).collect(),
        listen: allow.listen.iter().flat_map(|at| &at.value).map(|at| at.value.clone()).collect(),
        dirs: dirs.collect(),
        env: texts(&allow.env),
        exec: texts(&allow.exec),
        kafka: allow.kafka.iter().flat_map(|at| &at.value).map(|at| ConnectionName::new(at.value.as_str())).collect(),
        random: allow.random.as_ref().is_some_and(|at| at.value),
        wall_clock: allow.wall_clock.as_ref().is_some_and(|at| at.value),
    }
}

/// Grants must name what exists in the file.
pub fn check(stage: &StageTable<'_>, file: &PipelineFile) -> Vec<Diagnostic> {
    let Some(allow) = stage.allow.map(|at| &at.value) else { return Vec::new() };
    let known: Vec<&str> = named(&file.kafka).map(|(name, _)| name.value.as_str()).collect();
    let connections = allow.kafka.iter().flat_map(|at| &at.value);
    let unknown = connections.filter(|connection| !known.contains(&connection.value.as_str())).map(|connection| {
        let message = format!("there is no Kafka connection `{}`", connection.value);
        let problem = Diagnostic::error("unknown-connection", connection.span.clone(), message);
        let hint = nearest_hint(&connection.value, known.iter().copied(), "connection");
        problem.maybe_hint(
            hint.or_else(|| Some(format!("add [kafka.{}] with `\"bootstrap.servers\" = …`", connection.value))),
        )
    });
    let paths = allow.dirs.iter().flat_map(|at| &at.value).filter_map(|dir| dir.value.path.as_ref());
    let empty = paths.filter(|path| path.value.is_empty()).map(|path| {
        Diagnostic::error("bad-path", path.span.clone(), "the folder's path is empty")
            .hint("\".\" is this file's own folder")
    });
    unknown.chain(empty).collect()
}

/// What the plugin needs and the stage lacks, in one diagnostic with the very line to write.
pub fn lacking(stage: &StageTable<'_>, needs: &[Need], around: Surroundings<'_>, text: &str) -> Option<Diagnostic> {
    let granted = trusted(stage.allow, around);
    let (names, wanted) = beyond(needs, &granted)?;
    let message = format!("{} needs {names}, which it is not allowed", stage.title());
    let span = stage.allow.map_or_else(|| stage.plugin_span(), |allow| allow.span.clone());
    let is_inline = stage.allow.is_none_or(|allow| text.get(allow.span.start..).is_some_and(|t| t.starts_with('{')));
    let table = format!("{}s.{}", stage.kind, stage.name.value);
    let hint = match stage.allow {
        None => format!("add to [{table}]: {}", toml_line(&wanted)),
        Some(_) if is_inline => format!("write in [{table}]: {}", toml_line(&wanted)),
        Some(_) => format!("write in [{table}.allow]: {}", toml_entries(&wanted).join("; ")),
    };
    Some(Diagnostic::error("grant-lacking", span, message).hint(hint))
}

/// The needs that are not granted, named; and the grants with them. Nothing when all are.
pub fn beyond(needs: &[Need], granted: &Grants) -> Option<(String, Grants)> {
    let missing: Vec<&Need> = needs.iter().filter(|need| !is_granted(need, granted)).collect();
    if missing.is_empty() {
        return None;
    }
    let mut wanted = granted.clone();
    missing.iter().for_each(|need| add(need, &mut wanted));
    let names: Vec<String> = missing.iter().map(|need| format!("`{}`", shown(need))).collect();
    Some((names.join(" and "), wanted))
}

/// `allow = { … }` with everything in `grants`, to be pasted.
pub fn toml_line(grants: &Grants) -> String {
    format!("allow = {{ {} }}", toml_entries(grants).join(", "))
}

/// A plugin's needs as a line to paste.
pub fn needs_line(needs: &[Need]) -> Option<String> {
    let mut grants = Grants::default();
    for need in needs {
        add(need, &mut grants);
    }
    (grants != Grants::default()).then(|| toml_line(&grants))
}

fn toml_entries(grants: &Grants) -> Vec<String> {
    let list = |items: Vec<String>| format!("[{}]", items.join(", "));
    let texts = |items: &mut dyn Iterator<Item = String>| list(items.map(|item| quoted(&item)).collect());
    let dirs = grants.dirs.iter().map(|dir| match dir.write {
        true => format!("{{ path = {}, write = true }}", quoted(&dir.as_written)),
        false => format!("{{ path = {} }}", quoted(&dir.as_written)),
    });
    let lists = [
        ("net", texts(&mut grants.net.iter().map(ToString::to_string))),
        ("listen", texts(&mut grants.listen.iter().map(ToString::to_string))),
        ("dirs", list(dirs.collect())),
        ("env", texts(&mut grants.env.iter().cloned())),
        ("exec", texts(&mut grants.exec.iter().cloned())),
        ("kafka", texts(&mut grants.kafka.iter().map(ToString::to_string))),
    ];
    let mut entries: Vec<String> =
        lists.into_iter().filter(|(_, list)| list != "[]").map(|(name, list)| format!("{name} = {list}")).collect();
    for (name, is_granted) in [("random", grants.random), ("wall_clock", grants.wall_clock)] {
        if is_granted {
            entries.push(format!("{name} = true"));
        }
    }
    entries
}

fn quoted(text: &str) -> String {
    toml::Value::String(text.to_owned()).to_string()
}

fn is_granted(need: &Need, grants: &Grants) -> bool {
    let value = need.value.as_str();
    let address = |list: &[super::HostPort]| {
        parse_host_port(value).is_some_and(|wanted| {
            list.iter().any(|have| have.port == wanted.port && have.host.eq_ignore_ascii_case(&wanted.host))
        })
    };
    match need.grant.as_str() {
        "net" => address(&grants.net),
        "listen" => address(&grants.listen),
        "dirs" => {
            let (path, write) = folder(value);
            grants.dirs.iter().any(|dir| (dir.write || !write) && is_inside(&path, &dir.as_written))
        }
        "env" => grants.env.iter().any(|name| name == value),
        "exec" => grants.exec.iter().any(|line| line == value),
        "kafka" => grants.kafka.iter().any(|connection| connection.as_str() == value),
        "random" => grants.random,
        "wall_clock" => grants.wall_clock,
        // A word that this version does not know cannot be granted; the call that wants it will say so.
        _ => true,
    }
}

fn add(need: &Need, grants: &mut Grants) {
    let value = need.value.clone();
    match need.grant.as_str() {
        "net" => grants.net.extend(parse_host_port(&value)),
        "listen" => grants.listen.extend(parse_host_port(&value)),
        "dirs" => add_folder(&value, grants),
        "env" => grants.env.push(value),
        "exec" => grants.exec.push(value),
        "kafka" => grants.kafka.push(ConnectionName::new(value)),
        "random" => grants.random = true,
        "wall_clock" => grants.wall_clock = true,
        _ => {}
    }
}

/// A folder that is granted for reading and needed for writing is changed, not added.
fn add_folder(value: &str, grants: &mut Grants) {
    let (path, write) = folder(value);
    match grants.dirs.iter_mut().find(|dir| is_inside(&path, &dir.as_written)) {
        Some(dir) => dir.write |= write,
        None => grants.dirs.push(DirGrant { path: path.clone().into(), as_written: path, write }),
    }
}

/// A need for a folder is its path, to be read; or, as in `allow`, `{ path = "out", write = true }`.
fn folder(value: &str) -> (String, bool) {
    let document = format!("dir = {value}");
    let written = DeTable::parse(&document).ok().filter(|_| value.starts_with('{')).and_then(|parsed| {
        let (_, dir) = entry(parsed.get_ref(), "dir")?;
        let dir = dir.get_ref().as_table()?;
        let path = entry(dir, "path")?.1.get_ref().as_str()?.to_owned();
        Some((path, entry(dir, "write").and_then(|(_, write)| write.get_ref().as_bool()).unwrap_or(false)))
    });
    written.unwrap_or_else(|| (value.to_owned(), false))
}

/// Both paths are the guest's: compared by their parts, `.` left aside.
fn is_inside(path: &str, folder: &str) -> bool {
    let parts = |path| {
        let parts = Path::new(path).components();
        parts.filter(|part| *part != std::path::Component::CurDir).collect::<Vec<_>>()
    };
    let path = parts(path);
    !path.contains(&std::path::Component::ParentDir) && path.starts_with(&parts(folder))
}

fn shown(need: &Need) -> String {
    let mut grants = Grants::default();
    add(need, &mut grants);
    toml_entries(&grants).join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn need(grant: &str, value: &str) -> Need {
        Need { grant: grant.into(), value: value.into() }
    }

    #[test]
    fn a_folder_inside_a_granted_one_is_granted() {
        let dir = |path: &str, write| DirGrant { path: path.into(), as_written: path.into(), write };
        let grants = Grants { dirs: vec![dir("./logs/", false)], ..Grants::default() };
        assert!(is_granted(&need("dirs", "logs/app"), &grants));
        assert!(!is_granted(&need("dirs", "logs2"), &grants));
        assert!(!is_granted(&need("dirs", "logs/../etc"), &grants));
        assert!(!is_granted(&need("dirs", "{ path = \"logs\", write = true }"), &grants));
    }

    #[test]
    fn needs_are_shown_as_the_line_to_paste() {
        let needs = [
            need("net", "db:3306"),
            need("dirs", "in"),
            need("dirs", "{ path = \"out\", write = true }"),
            need("wall_clock", "true"),
        ];
        let expected = r#"allow = { net = ["db:3306"], dirs = [{ path = "in" }, { path = "out", write = true }], wall_clock = true }"#;
        assert_eq!(needs_line(&needs).as_deref(), Some(expected));
        assert_eq!(needs_line(&[]), None);
    }

    #[test]
    fn hosts_compare_without_regard_to_case() {
        let grants = Grants { net: vec![parse_host_port("DB.example:3306").unwrap()], ..Grants::default() };
        assert!(is_granted(&need("net", "db.example:3306"), &grants));
        assert!(!is_granted(&need("net", "db.example:3307"), &grants));
    }
}
