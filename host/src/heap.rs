//! The C library's allocator, told what this process does: columns of some hundred kilobytes come and go thousands of times a second.

/// Limit: free memory at the end of the heap that is kept, and what is mapped apart because it is larger. As it comes, the allocator
/// gives every column back to the system and asks for it again, a page fault for each 4 KiB; 4 MiB hold the columns under way of
/// many stages and are little beside what an idle agent has.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
const KEPT_BYTES: std::ffi::c_int = 4 << 20;

/// To be called before there are threads.
pub fn keep_free_memory() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    {
        use std::ffi::c_int;

        // From malloc.h.
        const TRIM_THRESHOLD: c_int = -1;
        const MMAP_THRESHOLD: c_int = -3;
        unsafe extern "C" {
            fn mallopt(parameter: c_int, value: c_int) -> c_int;
        }
        // SAFETY: it sets two numbers of the allocator, which any program may at any time.
        unsafe {
            mallopt(TRIM_THRESHOLD, KEPT_BYTES);
            mallopt(MMAP_THRESHOLD, KEPT_BYTES);
        }
    }
}
