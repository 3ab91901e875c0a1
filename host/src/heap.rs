//! The C library's allocator, told what this process does: columns of some hundred kilobytes come and go thousands of times a second, and
//! what a broker answers is larger still.

/// Blocks up to this size are taken from memory that is kept, from the start. As it comes, the C library maps each larger than 128 KiB
/// apart and gives it back to the system when it is freed, a page fault for each 4 KiB. 4 MiB hold the columns under way of many stages.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
const KEPT_BYTES: usize = 4 << 20;

/// To be called before there are threads.
///
/// glibc learns from what is freed: a block that was mapped apart raises the size from which others are, up to 32 MiB, and twice as much
/// free memory is then kept. This frees the first such block, so that it need not find out. Setting the sizes by `mallopt` would end the learning:
/// answers of a broker, of 1 MiB a partition, would be mapped apart for ever.
pub fn keep_free_memory() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    drop(std::hint::black_box(Vec::<u8>::with_capacity(KEPT_BYTES)));
}
