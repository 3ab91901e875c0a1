//! From bytes to a compiled component: what they are, whether they were compiled before, and not for ever.

use std::borrow::Cow;
use std::fs::File;
use std::io::Read;
use std::path::Path;
use std::sync::Arc;

use sha2::{Digest as _, Sha256};
use wasmtime::component::Component;

use super::cache;
use super::compiler::{Compiler, NotCompiled};
use super::engine::Engine;
use super::{Digest, Plugin, PluginError, PluginOrigin, standard};

/// Limit: a plugin's file. The largest known, Python with its interpreter, are some 20 MB raw and half of that stripped.
pub const MAX_FILE_BYTES: u64 = 16 << 20;

/// The bytes of a plugin. What was hashed is what is compiled.
pub struct Source {
    bytes: Cow<'static, [u8]>,
    digest: [u8; 32],
}

impl Source {
    /// # Errors
    /// When there is no such plugin, or it cannot be read, or is too large.
    pub async fn read(origin: &PluginOrigin) -> Result<Self, PluginError> {
        let origin = origin.clone();
        let read = tokio::task::spawn_blocking(move || {
            let bytes = match &origin {
                PluginOrigin::Standard { name, kind } => Cow::Borrowed(standard::find(*kind, name)?),
                PluginOrigin::File(path) | PluginOrigin::Pinned { path, .. } => Cow::Owned(read_file(&origin, path)?),
            };
            let source = Self::of(bytes);
            match origin {
                PluginOrigin::Pinned { digest: Digest(pinned), .. } if pinned != source.digest => {
                    Err(PluginError::OtherDigest { plugin: origin, found: Digest(source.digest) })
                }
                _ => Ok(source),
            }
        });
        read.await.expect("reading a file does not panic")
    }

    pub fn of(bytes: impl Into<Cow<'static, [u8]>>) -> Self {
        let bytes = bytes.into();
        let digest = Sha256::digest(&bytes).into();
        Self { bytes, digest }
    }

    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// SHA-256 in hexadecimal: how logs, metrics and dead letters tell versions of a plugin apart.
    pub fn digest(&self) -> String {
        self.digest.iter().map(|byte| format!("{byte:02x}")).collect()
    }
}

fn read_file(origin: &PluginOrigin, path: &Path) -> Result<Vec<u8>, PluginError> {
    let cannot = |source| PluginError::Read { path: path.to_owned(), source };
    let file = File::open(path).map_err(cannot)?;
    let found = file.metadata().map_err(cannot)?;
    if !found.is_file() {
        return Err(cannot(std::io::Error::other("it is not a file")));
    }
    let too_large = |bytes| PluginError::TooLarge { plugin: origin.clone(), bytes, limit: MAX_FILE_BYTES };
    if found.len() > MAX_FILE_BYTES {
        return Err(too_large(found.len()));
    }
    let mut bytes = Vec::with_capacity(found.len() as usize);
    // The file may grow while it is read.
    file.take(MAX_FILE_BYTES + 1).read_to_end(&mut bytes).map_err(cannot)?;
    if bytes.len() as u64 > MAX_FILE_BYTES {
        return Err(too_large(bytes.len() as u64));
    }
    Ok(bytes)
}

/// Compiles a plugin or finds it compiled, checks its world and asks it to describe itself.
pub async fn load(engine: &Engine, origin: &PluginOrigin, source: Source) -> Result<Plugin, PluginError> {
    check_form(origin, &source.bytes)?;
    let (digest, size_bytes) = (source.digest(), source.bytes.len());
    let component = compiled(engine, origin, Arc::new(source)).await?;
    Plugin::new(engine.clone(), origin.clone(), component, digest, size_bytes).await
}

/// Finds the machine code or makes it. A file is compiled by a child process, since nobody knows whose it is; what is embedded in this
/// binary is trusted as it is.
async fn compiled(engine: &Engine, origin: &PluginOrigin, source: Arc<Source>) -> Result<Component, PluginError> {
    let found = {
        let (engine, source) = (engine.clone(), source.clone());
        aside(move || Ok(engine.cache().and_then(|cache| cache.find(engine.wasm(), &source.digest)))).await?
    };
    if let Some(component) = found {
        return Ok(component);
    }
    let code = match (origin, engine.compiler()) {
        (PluginOrigin::File(_) | PluginOrigin::Pinned { .. }, Some(compiler)) => {
            let code = compiler.compile(source.clone()).await;
            Some(code.map_err(|error| not_compiled(origin, compiler, error))?)
        }
        _ => None,
    };
    let (engine, origin) = (engine.clone(), origin.clone());
    aside(move || {
        let refused = |error: wasmtime::Error| refused(&origin, error.root_cause().to_string());
        let code = match code {
            Some(code) => code,
            None => engine.wasm().precompile_component(&source.bytes).map_err(refused)?,
        };
        if let Some(cache) = engine.cache() {
            cache.keep(&source.digest, &code);
        }
        cache::adopt(engine.wasm(), &code).map_err(refused)
    })
    .await
}

/// Runs what takes long on a thread where it holds nobody up.
async fn aside<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, PluginError> + Send + 'static,
) -> Result<T, PluginError> {
    tokio::task::spawn_blocking(work).await.map_err(|error| PluginError::Engine(error.to_string()))?
}

fn not_compiled(origin: &PluginOrigin, compiler: &Compiler, error: NotCompiled) -> PluginError {
    let plugin = origin.clone();
    match error {
        NotCompiled::Refused(detail) => refused(origin, detail),
        NotCompiled::TimedOut => PluginError::CompileTimeout { plugin, limit: compiler.deadline },
        NotCompiled::Died(detail) => PluginError::TooCostly { plugin, detail },
        NotCompiled::Start(error) => PluginError::Engine(format!("cannot start the compiler: {error}")),
    }
}

/// Tells what is no component apart by its first bytes.
fn check_form(origin: &PluginOrigin, bytes: &[u8]) -> Result<(), PluginError> {
    const MAGIC: &[u8] = b"\0asm";
    const COMPONENT: &[u8] = b"\x0d\0\x01\0";
    const MODULE: &[u8] = b"\x01\0\0\0";
    let plugin = origin.clone();
    let Some((magic, version)) = bytes.split_at_checked(MAGIC.len()) else {
        return Err(match !bytes.is_empty() && MAGIC.starts_with(bytes) {
            true => PluginError::Damaged { plugin, detail: format!("it ends after {} bytes", bytes.len()) },
            false => PluginError::NotWasm { plugin },
        });
    };
    match (magic, version.get(..4)) {
        (MAGIC, Some(COMPONENT)) => Ok(()),
        (MAGIC, Some(MODULE)) => Err(PluginError::CoreModule { plugin }),
        (MAGIC, None) => Err(PluginError::Damaged { plugin, detail: format!("it ends after {} bytes", bytes.len()) }),
        (MAGIC, Some(other)) => {
            Err(PluginError::Damaged { plugin, detail: format!("its version field is {other:02x?}") })
        }
        _ if is_text(bytes) => Err(PluginError::Text { plugin }),
        _ => Err(PluginError::NotWasm { plugin }),
    }
}

fn is_text(bytes: &[u8]) -> bool {
    let text = bytes.trim_ascii_start();
    [&b"(module"[..], b"(component", b";;"].iter().any(|start| text.starts_with(start))
}

/// The compiler refuses a valid file only for what it uses; anything else is damage.
fn refused(origin: &PluginOrigin, detail: String) -> PluginError {
    let plugin = origin.clone();
    let uses = ["multiple memories", "not enabled", "must be enabled", "support is not", "requires the", "feature"];
    match uses.iter().any(|word| detail.contains(word)) {
        true => PluginError::Unsupported { plugin, detail },
        false => PluginError::Damaged { plugin, detail },
    }
}
