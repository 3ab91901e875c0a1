//! Reading files without changing threads: what the system has in memory is copied on the spot.
//!
//! wasmtime's own `read` hands each 64 KiB to another thread, since a disk may be slow and a mount may hang; that costs more than
//! the reading. Here the system is asked for what it can give at once (`RWF_NOWAIT`), and only where that is not all, the read
//! goes the long way. So the thread of a runner never waits for a disk.

use wasmtime::StoreContextMut;
use wasmtime::component::{Linker, Resource};
use wasmtime_wasi::filesystem::{Descriptor, File, WasiFilesystemView as _};
use wasmtime_wasi::p2::bindings::filesystem::types::{ErrorCode, HostDescriptor};

use super::State;
use super::files::{TYPES, answer};

/// Limit: what one read brings at most, as in wasmtime-wasi.
const MAX_READ_BYTES: u64 = 64 << 10;

type Handle = Resource<Descriptor>;
/// The bytes, and whether the file ends in front of them.
type Read = Result<(Vec<u8>, bool), ErrorCode>;

/// Takes the place of `read` in what WASI offers, which must allow that.
pub fn add_to_linker(linker: &mut Linker<State>) -> wasmtime::Result<()> {
    linker.instance(TYPES)?.func_wrap_async(
        "[method]descriptor.read",
        |store: StoreContextMut<'_, State>, (file, length, offset): (Handle, u64, u64)| {
            Box::new(read(store, file, length, offset))
        },
    )
}

async fn read(
    mut store: StoreContextMut<'_, State>,
    file: Handle,
    length: u64,
    offset: u64,
) -> wasmtime::Result<(Read,)> {
    let state = store.data_mut();
    let wanted = length.min(MAX_READ_BYTES) as usize;
    if let Descriptor::File(file) = state.table.get(&file)?
        && let Some(bytes) = read_at_once(file, wanted, offset)
    {
        return Ok((Ok((bytes, false)),));
    }
    answer(HostDescriptor::read(&mut state.filesystem(), file, length, offset).await)
}

/// All that was asked for, where the system has it in memory. Less may mean the end of the file or the edge of what is in memory:
/// which of them, only a read that may wait can tell.
#[cfg(target_os = "linux")]
fn read_at_once(file: &File, wanted: usize, offset: u64) -> Option<Vec<u8>> {
    use std::io::IoSliceMut;

    use rustix::io::{ReadWriteFlags, preadv2};

    // An offset of all ones would mean the file's own cursor.
    if wanted == 0 || offset > i64::MAX as u64 {
        return None;
    }
    let mut bytes = vec![0; wanted];
    let count = preadv2(&*file.file, &mut [IoSliceMut::new(&mut bytes)], offset, ReadWriteFlags::NOWAIT).ok()?;
    (count == wanted).then_some(bytes)
}

#[cfg(not(target_os = "linux"))]
fn read_at_once(_file: &File, _wanted: usize, _offset: u64) -> Option<Vec<u8>> {
    None
}
