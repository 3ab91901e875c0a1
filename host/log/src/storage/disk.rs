//! The real thing: files of the operating system.

use std::fs::{self, OpenOptions};
use std::io::{self, IoSlice, Read, Seek, Write};
use std::path::Path;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use rustix::fs::{Advice, FallocateFlags, FlockOperation};
use rustix::io::Errno;

use super::{Entry, File, Lock, LockError, Storage};

/// The disk of this machine.
#[derive(Debug, Clone, Copy, Default)]
pub struct Disk;

/// `statfs` types whose locks and syncs go over a network: NFS, SMB2, CIFS, Ceph, FUSE (sshfs and the like are among these).
const NETWORK_FILE_SYSTEMS: [u64; 5] = [0x6969, 0xfe53_4d42, 0xff53_4d42, 0x00c3_6400, 0x6573_5546];

impl Storage for Disk {
    fn open_read(&self, path: &Path) -> io::Result<Arc<dyn File>> {
        Ok(Arc::new(DiskFile(fs::File::open(path)?)))
    }

    fn open_write(&self, path: &Path) -> io::Result<Arc<dyn File>> {
        Ok(Arc::new(DiskFile(OpenOptions::new().read(true).write(true).open(path)?)))
    }

    fn create(&self, path: &Path) -> io::Result<Arc<dyn File>> {
        let file = OpenOptions::new().read(true).write(true).create(true).truncate(true).open(path)?;
        Ok(Arc::new(DiskFile(file)))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        fs::rename(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        fs::remove_file(path)
    }

    fn create_folder(&self, path: &Path) -> io::Result<()> {
        fs::create_dir_all(path)
    }

    fn list(&self, folder: &Path) -> io::Result<Vec<Entry>> {
        fs::read_dir(folder)?
            .map(|entry| {
                let entry = entry?;
                let name = entry.file_name().to_string_lossy().into_owned();
                Ok(Entry { name, is_folder: entry.file_type()?.is_dir() })
            })
            .collect()
    }

    fn sync_folder(&self, folder: &Path) -> io::Result<()> {
        fs::File::open(folder)?.sync_all()
    }

    fn free_bytes(&self, folder: &Path) -> io::Result<u64> {
        let stat = rustix::fs::statvfs(folder)?;
        Ok(stat.f_bavail.saturating_mul(stat.f_frsize))
    }

    fn lock(&self, folder: &Path) -> Result<Box<dyn Lock>, LockError> {
        let path = folder.join("lock");
        // A folder that cannot be written can still be looked at, by one process at a time.
        let (mut file, writable) =
            match OpenOptions::new().read(true).write(true).create(true).truncate(false).open(&path) {
                Ok(file) => (file, true),
                Err(error) => (fs::File::open(&path).map_err(|_| LockError::Io(error))?, false),
            };
        if let Err(error) = rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
            if error != Errno::WOULDBLOCK {
                return Err(LockError::Io(error.into()));
            }
            let mut holder = String::new();
            _ = file.read_to_string(&mut holder);
            return Err(LockError::Held(if holder.is_empty() { "another process".into() } else { holder }));
        }
        if writable {
            name_holder(&mut file).map_err(LockError::Io)?;
        }
        Ok(Box::new(DiskLock { _file: file }))
    }

    fn is_network(&self, folder: &Path) -> bool {
        rustix::fs::statfs(folder).is_ok_and(|stat| NETWORK_FILE_SYSTEMS.contains(&(stat.f_type as u64 & 0xffff_ffff)))
    }

    fn now_ms(&self) -> u64 {
        SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as u64)
    }

    fn unique_id(&self) -> [u8; 16] {
        let mut id = [0; 16];
        let filled = fs::File::open("/dev/urandom").and_then(|mut random| random.read_exact(&mut id));
        // Invariant: two channels with one id would accept each other's files.
        assert!(filled.is_ok(), "no random bytes for a channel's id: {filled:?}");
        id
    }
}

fn name_holder(file: &mut fs::File) -> io::Result<()> {
    let host = rustix::system::uname();
    file.set_len(0)?;
    file.rewind()?;
    write!(file, "process {} on {}", std::process::id(), host.nodename().to_string_lossy())
}

/// The kernel's lock on the file `lock`; it ends with the process, however that ends.
struct DiskLock {
    _file: fs::File,
}

impl Lock for DiskLock {}

struct DiskFile(fs::File);

impl File for DiskFile {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        Ok(rustix::io::pread(&self.0, buffer, offset)?)
    }

    fn write_at(&self, slices: &[IoSlice<'_>], offset: u64) -> io::Result<usize> {
        Ok(rustix::io::pwritev(&self.0, slices, offset)?)
    }

    fn len(&self) -> io::Result<u64> {
        Ok(self.0.metadata()?.len())
    }

    fn set_len(&self, bytes: u64) -> io::Result<()> {
        self.0.set_len(bytes)
    }

    fn allocate(&self, bytes: u64) -> io::Result<()> {
        match rustix::fs::fallocate(&self.0, FallocateFlags::empty(), 0, bytes) {
            // A file system without it: the space is then taken while writing, where a full disk is met as well.
            Err(Errno::OPNOTSUPP | Errno::NOSYS) => self.set_len(bytes),
            result => Ok(result?),
        }
    }

    fn sync_data(&self) -> io::Result<()> {
        self.0.sync_data()
    }

    fn sync_all(&self) -> io::Result<()> {
        self.0.sync_all()
    }

    fn drop_cache(&self) -> io::Result<()> {
        Ok(rustix::fs::fadvise(&self.0, 0, None, Advice::DontNeed)?)
    }
}
