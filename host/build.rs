//! Compiles the standard plugins to components and embeds them.
//!
//! A nested cargo builds `plugins/*` for wasm32-wasip2 into a target folder of its own, which outlives this build, so a change to
//! one plugin compiles that plugin, links it, and rebuilds nothing of the host's dependencies.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::{env, fs};

const TARGET: &str = "wasm32-wasip2";
const PROFILE: &str = "plugin";
/// How a plugin's folder ends, and the kind it means.
const KINDS: [(&str, &str); 3] = [("-source", "Source"), ("-interceptor", "Interceptor"), ("-sink", "Sink")];

/// One folder of `plugins/`.
struct Plugin {
    /// The package and the folder, as in `prefix-suffix-sink`.
    package: String,
    name: String,
    kind: &'static str,
}

fn main() {
    let root = PathBuf::from(env::var_os("CARGO_MANIFEST_DIR").expect("cargo sets CARGO_MANIFEST_DIR")).join("..");
    let out = PathBuf::from(env::var_os("OUT_DIR").expect("cargo sets OUT_DIR"));
    for watched in
        ["plugins", "sdk/rust", "wit", "Cargo.lock", "Cargo.toml", ".cargo/config.toml", "rust-toolchain.toml"]
    {
        println!("cargo::rerun-if-changed={}", root.join(watched).display());
    }
    println!("cargo::rerun-if-changed=build.rs");
    if env::var("CARGO_CFG_TARGET_OS").is_ok_and(|system| system == "linux") {
        // See src/kafka_wait.rs.
        println!("cargo::rustc-link-arg-bins=-Wl,--wrap=rd_kafka_transport_io_serve");
    }
    let plugins = find(&root.join("plugins"));
    if !plugins.is_empty() {
        compile(&root, &out, &plugins);
    }
    let table = table(&out, &plugins);
    write_if_changed(&out.join("standard.rs"), table.as_bytes());
}

fn find(dir: &Path) -> Vec<Plugin> {
    let folders = fs::read_dir(dir).into_iter().flatten().flatten();
    let mut plugins: Vec<Plugin> = folders
        .filter(|folder| folder.path().join("Cargo.toml").exists())
        .filter_map(|folder| {
            let package = folder.file_name().into_string().ok()?;
            let (ending, kind) = KINDS.into_iter().find(|(ending, _)| package.ends_with(ending))?;
            let name = package.strip_suffix(ending)?.to_owned();
            Some(Plugin { package, name, kind })
        })
        .collect();
    plugins.sort_by(|one, other| one.package.cmp(&other.package));
    plugins
}

/// Builds all plugins and copies each component into `out`, where it is touched only when it changed.
fn compile(root: &Path, out: &Path, plugins: &[Plugin]) {
    check_target();
    let target_dir = target_dir(out).join("plugins");
    let mut cargo = Command::new(env::var_os("CARGO").expect("cargo sets CARGO"));
    cargo.current_dir(root).args(["build", "--locked", "--profile", PROFILE, "--target", TARGET, "--target-dir"]);
    cargo.arg(&target_dir);
    for plugin in plugins {
        cargo.args(["--package", &plugin.package]);
    }
    clean_environment(&mut cargo);
    let status =
        cargo.status().unwrap_or_else(|error| fail(&format!("cannot run cargo for the standard plugins: {error}")));
    if !status.success() {
        fail("the standard plugins do not compile; cargo's messages are above");
    }
    for plugin in plugins {
        let file = format!("{}.wasm", plugin.package.replace('-', "_"));
        let path = target_dir.join(TARGET).join(PROFILE).join(&file);
        let component = fs::read(&path).unwrap_or_else(|error| {
            fail(&format!(
                "`{}` made no component {}: {error}; is its crate-type `cdylib`?",
                plugin.package,
                path.display()
            ))
        });
        write_if_changed(&out.join(file), &component);
    }
}

/// What the outer build says to its build scripts and compilers is not meant for the plugins: flags for the host, clippy in the
/// compiler's place, the outer profile. Where crates come from is.
fn clean_environment(cargo: &mut Command) {
    const KEPT: [&str; 8] = [
        "CARGO_HOME",
        "CARGO_HTTP_",
        "CARGO_NET_",
        "CARGO_REGISTRIES_",
        "CARGO_REGISTRY_",
        "CARGO_SOURCE_",
        "CARGO_TERM_",
        "CARGO_MAKEFLAGS",
    ];
    for (name, _) in env::vars_os() {
        let Some(name) = name.to_str() else { continue };
        let of_cargo = name.starts_with("CARGO_") && !KEPT.iter().any(|kept| name.starts_with(kept));
        let of_compiler = ["RUSTFLAGS", "RUSTC_WORKSPACE_WRAPPER", "RUSTDOCFLAGS", "CLIPPY_ARGS"].contains(&name);
        if of_cargo || of_compiler {
            cargo.env_remove(name);
        }
    }
}

fn check_target() {
    let rustc = env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
    let found = Command::new(rustc).args(["--print", "target-libdir", "--target", TARGET]).output();
    let libdir = found.ok().and_then(|found| String::from_utf8(found.stdout).ok());
    if !libdir.is_some_and(|dir| Path::new(dir.trim()).is_dir()) {
        fail(&format!(
            "the plugins are compiled for {TARGET}, which is not installed: run `rustup target add {TARGET}`"
        ));
    }
}

/// The outer target folder: cargo marks it.
fn target_dir(out: &Path) -> PathBuf {
    out.ancestors().find(|dir| dir.join("CACHEDIR.TAG").exists()).unwrap_or(out).to_owned()
}

fn table(out: &Path, plugins: &[Plugin]) -> String {
    let mut table = String::from("/// Every standard plugin.\npub static ALL: &[Standard] = &[\n");
    for Plugin { package, name, kind } in plugins {
        let component = out.join(format!("{}.wasm", package.replace('-', "_")));
        writeln!(
            table,
            "    Standard {{ name: {name:?}, kind: PluginKind::{kind}, component: include_bytes!({component:?}) }},"
        )
        .expect("writing to memory cannot fail");
    }
    table + "];\n"
}

fn write_if_changed(path: &Path, contents: &[u8]) {
    if fs::read(path).is_ok_and(|known| known == contents) {
        return;
    }
    if let Err(error) = fs::write(path, contents) {
        fail(&format!("cannot write {}: {error}", path.display()));
    }
}

fn fail(message: &str) -> ! {
    println!("cargo::error={message}");
    std::process::exit(1);
}
