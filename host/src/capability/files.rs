//! Files: the granted folders, and a folder `/` for everything else, in which nothing is and every way is answered with what is missing.
//!
//! Without that folder a guest's own library finds no folder for its path and says "no such file" before the host hears of it; nobody
//! would be told which grant is missing. It is a handle of `/dev/null`, so that what is not answered here leads nowhere either.

use std::path::Path;
use std::sync::{Arc, LazyLock};

use wasmtime::StoreContextMut;
use wasmtime::component::{Linker, Resource};
use wasmtime_wasi::WasiView as _;
use wasmtime_wasi::filesystem::{Descriptor, Dir, OpenMode, WasiFilesystemView as _};
use wasmtime_wasi::p2::FsResult;
use wasmtime_wasi::p2::bindings::filesystem::preopens;
use wasmtime_wasi::p2::bindings::filesystem::types::{
    DescriptorFlags, ErrorCode, HostDescriptor, NewTimestamp, OpenFlags, PathFlags,
};
use wasmtime_wasi::{FsPerms, WasiCtxBuilder};

use super::State;
use super::granted::Granted;
use crate::config::DirGrant;

/// As wasmtime-wasi offers them; a guest may import any 0.2.
const PREOPENS: &str = "wasi:filesystem/preopens@0.2.12";
pub(super) const TYPES: &str = "wasi:filesystem/types@0.2.12";

/// What stands for all folders that are not granted. Nothing on a machine without `/dev/null`: they are denied all the same.
static ELSEWHERE: LazyLock<Option<Dir>> = LazyLock::new(|| {
    let nothing = std::fs::File::open("/dev/null").ok()?;
    Some(Dir::new(nothing, FsPerms::ReadOnly, OpenMode::READ, false))
});

type Store<'a> = StoreContextMut<'a, State>;
type Folder = Resource<Descriptor>;

/// Opens a granted folder.
///
/// # Errors
/// When it cannot be made or opened; that may go well later.
pub fn preopen(builder: &mut WasiCtxBuilder, dir: &DirGrant) -> Result<(), String> {
    let cannot = |what: &str, error: &dyn std::fmt::Display| {
        format!("cannot {what} the granted folder `{}` ({}): {error}", dir.as_written, dir.path.display())
    };
    if dir.write {
        std::fs::create_dir_all(&dir.path).map_err(|error| cannot("make", &error))?;
    }
    let permissions = if dir.write { FsPerms::ReadWrite } else { FsPerms::ReadOnly };
    builder.preopened_dir(&dir.path, &dir.as_written, permissions).map_err(|error| cannot("open", &error)).map(drop)
}

/// Replaces what leads from one folder to another; the rest is wasmtime's.
pub fn add_to_linker(linker: &mut Linker<State>) -> wasmtime::Result<()> {
    linker.instance(PREOPENS)?.func_wrap("get-directories", directories)?;
    let mut types = linker.instance(TYPES)?;
    /// A function of folders and paths: denied where one of the folders is [`ELSEWHERE`], else as wasmtime has it.
    macro_rules! guarded {
        ($name:literal, $method:ident($($argument:ident: $type:ty),*), $use:expr, $($folder:ident / $path:ident),+) => {
            types.func_wrap_async($name, |mut store: Store<'_>, ($($argument,)*): ($($type,)*)| {
                Box::new(async move {
                    let state = store.data_mut();
                    $(if state.is_elsewhere(&$folder)? {
                        deny(&state.granted, &$path, $use);
                        return Ok((Err(ErrorCode::Access),));
                    })+
                    let mut files = state.filesystem();
                    answer(HostDescriptor::$method(&mut files, $($argument),*).await)
                })
            })?;
        };
    }
    guarded!(
        "[method]descriptor.open-at",
        open_at(folder: Folder, follow: PathFlags, path: String, how: OpenFlags, flags: DescriptorFlags),
        Use::of_open(how, flags), folder / path
    );
    guarded!("[method]descriptor.stat-at", stat_at(folder: Folder, follow: PathFlags, path: String), Use::Read, folder / path);
    guarded!(
        "[method]descriptor.metadata-hash-at",
        metadata_hash_at(folder: Folder, follow: PathFlags, path: String), Use::Read, folder / path
    );
    guarded!("[method]descriptor.readlink-at", readlink_at(folder: Folder, path: String), Use::Read, folder / path);
    guarded!(
        "[method]descriptor.create-directory-at",
        create_directory_at(folder: Folder, path: String), Use::Write, folder / path
    );
    guarded!(
        "[method]descriptor.remove-directory-at",
        remove_directory_at(folder: Folder, path: String), Use::Write, folder / path
    );
    guarded!("[method]descriptor.unlink-file-at", unlink_file_at(folder: Folder, path: String), Use::Write, folder / path);
    guarded!(
        "[method]descriptor.symlink-at",
        symlink_at(folder: Folder, target: String, path: String), Use::Write, folder / path
    );
    guarded!(
        "[method]descriptor.rename-at",
        rename_at(folder: Folder, path: String, to: Folder, new: String), Use::Write, folder / path, to / new
    );
    guarded!(
        "[method]descriptor.link-at",
        link_at(folder: Folder, follow: PathFlags, path: String, to: Folder, new: String), Use::Write, folder / path, to / new
    );
    guarded!(
        "[method]descriptor.set-times-at",
        set_times_at(folder: Folder, follow: PathFlags, path: String, read: NewTimestamp, written: NewTimestamp),
        Use::Write, folder / path
    );
    Ok(())
}

type Directories = (Vec<(Folder, String)>,);

fn directories(mut store: Store<'_>, (): ()) -> wasmtime::Result<Directories> {
    let state = store.data_mut();
    let mut directories = preopens::Host::get_directories(&mut state.filesystem())?;
    let is_root = |name: &str| name.trim_start_matches(['.', '/']).is_empty();
    if let Some(elsewhere) = &*ELSEWHERE
        && !directories.iter().any(|(_, name)| is_root(name))
    {
        directories.push((state.ctx().table.push(Descriptor::Dir(elsewhere.clone()))?, "/".into()));
    }
    Ok((directories,))
}

/// What a guest is told; an error that is none of its own is a trap.
pub(super) fn answer<T>(result: FsResult<T>) -> wasmtime::Result<(Result<T, ErrorCode>,)> {
    match result {
        Ok(answer) => Ok((Ok(answer),)),
        Err(error) => Ok((Err(error.downcast()?),)),
    }
}

impl State {
    fn is_elsewhere(&self, folder: &Folder) -> wasmtime::Result<bool> {
        let Some(elsewhere) = &*ELSEWHERE else { return Ok(false) };
        Ok(matches!(self.table.get(folder)?, Descriptor::Dir(dir) if Arc::ptr_eq(&dir.dir, &elsewhere.dir)))
    }
}

/// What a guest wants of a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Use {
    Read,
    List,
    Write,
}

impl Use {
    fn of_open(how: OpenFlags, flags: DescriptorFlags) -> Self {
        let writes = flags.intersects(DescriptorFlags::WRITE | DescriptorFlags::MUTATE_DIRECTORY)
            || how.intersects(OpenFlags::CREATE | OpenFlags::TRUNCATE);
        match writes {
            true => Self::Write,
            false if how.contains(OpenFlags::DIRECTORY) => Self::List,
            false => Self::Read,
        }
    }
}

fn deny(granted: &Granted, path: &str, wanted: Use) {
    let path = as_meant(path);
    let folder = match (wanted, Path::new(&path).parent()) {
        (Use::Read | Use::Write, Some(folder)) if !folder.as_os_str().is_empty() => folder.display().to_string(),
        _ => path.clone(),
    };
    let (what, write) = match wanted {
        Use::Read => ("reading", ""),
        Use::List => ("listing", ""),
        Use::Write => ("writing", ", write = true"),
    };
    granted.deny(&format!("{what} `{path}`"), &format!("allow = {{ dirs = [{{ path = {folder:?}{write} }}] }}"));
}

/// A guest's library has taken the `/` off an absolute path: it was there where this machine has such a folder.
fn as_meant(path: &str) -> String {
    let path = path.trim_start_matches("./");
    let first = path.split('/').next().unwrap_or_default();
    match first {
        "" | "." | ".." => format!("/{}", path.trim_start_matches(['.', '/'])),
        _ if Path::new("/").join(first).exists() => format!("/{path}"),
        _ => path.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_shown_as_the_guest_wrote_it() {
        let meant = ["etc/passwd", "logs-of-nobody/app.log", "./etc/passwd", ".", "../../etc/passwd"].map(as_meant);
        assert_eq!(meant, ["/etc/passwd", "logs-of-nobody/app.log", "/etc/passwd", "/", "/etc/passwd"]);
    }

    #[test]
    fn the_line_grants_the_folder_of_the_file_and_no_more() {
        let granted = Granted::of_test(crate::config::Grants::default());
        let denial = |path: &str, wanted| {
            deny(&granted, path, wanted);
            granted.take_denial().unwrap()
        };
        assert_eq!(
            denial("etc/passwd", Use::Read),
            "reading `/etc/passwd` is not granted; the stage needs `allow = { dirs = [{ path = \"/etc\" }] }`"
        );
        assert!(denial("etc", Use::List).contains("listing `/etc` is not granted"));
        assert!(denial("etc/x/y", Use::Write).contains("{ path = \"/etc/x\", write = true }"));
    }
}
