//! The C library's allocator, told what this process does: columns of some hundred kilobytes come and go thousands of times a second.

/// Limit: free memory at the end of the heap that is kept, and what is mapped apart because it is larger. As it comes, the allocator
/// gives every column back to the system and asks for it again, a page fault for each 4 KiB; 4 MiB hold the columns under way of
/// many stages and are little beside what an idle agent has.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
const KEPT_BYTES: libc::c_int = 4 << 20;

/// To be called before there are threads.
pub fn keep_free_memory() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    // SAFETY: it sets two numbers of the allocator, which any program may at any time.
    unsafe {
        libc::mallopt(libc::M_TRIM_THRESHOLD, KEPT_BYTES);
        libc::mallopt(libc::M_MMAP_THRESHOLD, KEPT_BYTES);
    }
}
