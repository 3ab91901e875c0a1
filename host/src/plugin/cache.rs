//! Compiled machine code on disk, so that a second start costs milliseconds.
//!
//! Loading machine code is trusting it: the folder and its files are the owner's alone, or they are left aside, and a file that is
//! not what was written is compiled again. The key covers the plugin, the engine's version and its settings.
//!
//! ```text
//! <sha-256 of the key>.cwasm:  sha-256 of the rest (32 bytes) | machine code, as wasmtime serializes it
//! ```

use std::fs::{self, DirBuilder, File, Permissions};
use std::hash::{Hash, Hasher};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};
use wasmtime::component::Component;

const HASH_BYTES: usize = 32;

/// A folder of compiled plugins.
#[derive(Debug)]
pub struct Cache {
    dir: PathBuf,
    settings: [u8; HASH_BYTES],
}

impl Cache {
    /// Opens the folder, making it when there is none. A folder that others own or may write is not used, with a warning: a
    /// start takes longer then, and nothing else.
    pub fn open(engine: &wasmtime::Engine, dir: PathBuf) -> Option<Self> {
        match private_folder(&dir) {
            Ok(()) => Some(Self { dir, settings: settings_hash(engine) }),
            Err(reason) => {
                tracing::warn!(dir = %dir.display(), reason, "compiled plugins are not kept");
                None
            }
        }
    }

    /// What was compiled of these bytes before, by this engine with these settings.
    pub fn find(&self, engine: &wasmtime::Engine, digest: &[u8; HASH_BYTES]) -> Option<Component> {
        let path = self.path(digest);
        let code = match read_private(&path) {
            Ok(code) => code,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return None,
            Err(error) => {
                tracing::warn!(file = %path.display(), %error, "a compiled plugin is not used, and made anew");
                return None;
            }
        };
        // `read_private` has seen that only this user could write the file and that it is whole, and nothing but what wasmtime
        // serialized is written.
        adopt(engine, &code[HASH_BYTES..])
            .inspect_err(|error| tracing::debug!(%error, "a compiled plugin is of another engine"))
            .ok()
    }

    /// Keeps a compiled plugin: written aside, then renamed, so that no other process reads half a file.
    pub fn keep(&self, digest: &[u8; HASH_BYTES], code: &[u8]) {
        let path = self.path(digest);
        if let Err(error) = write_private(&path, code) {
            tracing::warn!(file = %path.display(), %error, "a compiled plugin is not kept");
        }
    }

    fn path(&self, digest: &[u8; HASH_BYTES]) -> PathBuf {
        let key = Sha256::new().chain_update(digest).chain_update(self.settings).finalize();
        self.dir.join(format!("{key:x}.cwasm"))
    }
}

/// Takes machine code for what it is. Only for code that this program has compiled: in this process, in a child of it, or once before.
pub fn adopt(engine: &wasmtime::Engine, code: &[u8]) -> wasmtime::Result<Component> {
    // SAFETY: see above: no caller hands over what a user brought. wasmtime checks its version and settings itself.
    unsafe { Component::deserialize(engine, code) }
}

/// A hash of everything besides the plugin that machine code depends on.
fn settings_hash(engine: &wasmtime::Engine) -> [u8; HASH_BYTES] {
    struct Stable(Sha256);
    impl Hasher for Stable {
        fn write(&mut self, bytes: &[u8]) {
            self.0.update(bytes);
        }

        fn finish(&self) -> u64 {
            0 // Not asked for: the whole digest is used.
        }
    }
    let mut hasher = Stable(Sha256::new());
    engine.precompile_compatibility_hash().hash(&mut hasher);
    hasher.0.finalize().into()
}

fn private_folder(dir: &Path) -> Result<(), String> {
    let make = || {
        if let Some(parent) = dir.parent() {
            fs::create_dir_all(parent)?;
        }
        match DirBuilder::new().mode(0o700).create(dir) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
            made => made,
        }
    };
    make().map_err(|error: io::Error| format!("it cannot be made: {error}"))?;
    let found = fs::symlink_metadata(dir).map_err(|error| error.to_string())?;
    if !found.is_dir() {
        return Err("it is not a folder".into());
    }
    if found.uid() != rustix::process::geteuid().as_raw() {
        return Err("it belongs to another user".into());
    }
    if found.mode() & 0o022 != 0 {
        return Err("others may write it".into());
    }
    fs::set_permissions(dir, Permissions::from_mode(0o700)).map_err(|error| error.to_string())
}

/// Reads a file that only this user can have written, and that is whole.
fn read_private(path: &Path) -> io::Result<Vec<u8>> {
    let mut file = File::options().read(true).custom_flags(rustix::fs::OFlags::NOFOLLOW.bits() as i32).open(path)?;
    let found = file.metadata()?;
    let foreign = found.uid() != rustix::process::geteuid().as_raw() || found.mode() & 0o022 != 0;
    if !found.is_file() || foreign {
        return Err(io::Error::new(io::ErrorKind::PermissionDenied, "others may have written it"));
    }
    let mut bytes = Vec::with_capacity(found.len() as usize);
    file.read_to_end(&mut bytes)?;
    match bytes.split_at_checked(HASH_BYTES) {
        Some((hash, code)) if hash == Sha256::digest(code).as_slice() => Ok(bytes),
        _ => Err(io::Error::new(io::ErrorKind::InvalidData, "it is damaged")),
    }
}

fn write_private(path: &Path, code: &[u8]) -> io::Result<()> {
    let aside = path.with_extension(format!("{}-{:x}.aside", std::process::id(), rand::random::<u32>()));
    let write = || {
        let mut file = File::options().write(true).create_new(true).mode(0o600).open(&aside)?;
        file.write_all(&Sha256::digest(code))?;
        file.write_all(code)?;
        // Not synced: a file cut short by a crash is found out by its hash.
        fs::rename(&aside, path)
    };
    write().inspect_err(|_| drop(fs::remove_file(&aside)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn engine() -> wasmtime::Engine {
        wasmtime::Engine::default()
    }

    fn code(engine: &wasmtime::Engine) -> Vec<u8> {
        engine.precompile_component(b"\0asm\x0d\0\x01\0").unwrap()
    }

    #[test]
    fn what_was_kept_is_found_and_only_by_its_own_key() {
        let dir = tempfile::tempdir().unwrap();
        let engine = engine();
        let cache = Cache::open(&engine, dir.path().join("code")).unwrap();
        assert!(cache.find(&engine, &[1; 32]).is_none());
        cache.keep(&[1; 32], &code(&engine));
        assert!(cache.find(&engine, &[1; 32]).is_some());
        assert!(cache.find(&engine, &[2; 32]).is_none());
    }

    #[test]
    fn folder_and_files_are_the_owners_alone() {
        let dir = tempfile::tempdir().unwrap();
        let engine = engine();
        let cache = Cache::open(&engine, dir.path().join("code")).unwrap();
        cache.keep(&[1; 32], &code(&engine));
        assert_eq!(fs::metadata(&cache.dir).unwrap().mode() & 0o777, 0o700);
        assert_eq!(fs::metadata(cache.path(&[1; 32])).unwrap().mode() & 0o777, 0o600);
    }

    #[test]
    fn a_file_that_was_changed_is_not_used() {
        let dir = tempfile::tempdir().unwrap();
        let engine = engine();
        let cache = Cache::open(&engine, dir.path().join("code")).unwrap();
        cache.keep(&[1; 32], &code(&engine));
        let path = cache.path(&[1; 32]);
        let mut bytes = fs::read(&path).unwrap();
        let middle = bytes.len() / 2;
        bytes[middle] ^= 1;
        fs::write(&path, &bytes).unwrap();
        assert!(cache.find(&engine, &[1; 32]).is_none());
        fs::write(&path, b"short").unwrap();
        assert!(cache.find(&engine, &[1; 32]).is_none());
    }

    #[test]
    fn code_of_other_settings_or_another_version_is_made_anew() {
        let dir = tempfile::tempdir().unwrap();
        let engine = engine();
        let cache = Cache::open(&engine, dir.path().join("code")).unwrap();
        let other = wasmtime::Engine::new(wasmtime::Config::new().epoch_interruption(true)).unwrap();
        // As if the names of both were the same: the code itself says what it is for.
        cache.keep(&[1; 32], &code(&other));
        assert!(cache.find(&engine, &[1; 32]).is_none());
        cache.keep(&[1; 32], &code(&engine));
        assert!(cache.find(&engine, &[1; 32]).is_some());
        assert!(Cache::open(&other, dir.path().join("code")).unwrap().find(&other, &[1; 32]).is_none());
    }

    #[test]
    fn a_file_that_others_may_write_is_not_used() {
        let dir = tempfile::tempdir().unwrap();
        let engine = engine();
        let cache = Cache::open(&engine, dir.path().join("code")).unwrap();
        cache.keep(&[1; 32], &code(&engine));
        fs::set_permissions(cache.path(&[1; 32]), Permissions::from_mode(0o622)).unwrap();
        assert!(cache.find(&engine, &[1; 32]).is_none());
    }

    #[test]
    fn a_folder_that_others_may_write_is_not_used() {
        let dir = tempfile::tempdir().unwrap();
        fs::set_permissions(dir.path(), Permissions::from_mode(0o777)).unwrap();
        assert!(Cache::open(&engine(), dir.path().into()).is_none());
        let link = dir.path().join("link");
        std::os::unix::fs::symlink(dir.path(), &link).unwrap();
        assert!(Cache::open(&engine(), link).is_none());
    }
}
