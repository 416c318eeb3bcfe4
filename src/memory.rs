//! The program's memory: its allocator, and how that is set up before `main`.

#![allow(unsafe_code)]

use mimalloc::MiMalloc;

/// Blocks of a megabyte go from the thread that reads to the one that decodes, chunk after chunk. The C
/// library's allocator gives such memory back to the system and asks for it again.
#[global_allocator]
static ALLOCATOR: MiMalloc = MiMalloc;

/// Every checkpoint needs memory for what has changed: of a million keys a copy of 60 MB and entries of 50, every few
/// seconds.
///
/// - First touching so much in pages of 4 KiB costs more than writing it: a history of 8 s took 13.5 s with a checkpoint
///   every second, in pages of 2 MiB 9.3 s. Linux gives them to who asks, and mimalloc asks if it is told to before it
///   gets its first memory, so before `main`.
/// - mimalloc gives memory back to the system a second after it was freed, and whoever needs some next pays for it again:
///   with a checkpoint every 5 s a history of 18 s took 3 s longer. It keeps it for minutes now, so for the checkpoint that
///   comes next.
#[cfg(target_os = "linux")]
#[used]
// SAFETY: what stands in this section is called once, at the start of the program, by the one thread that there is.
#[unsafe(link_section = ".init_array")]
static SET_UP: extern "C" fn() = {
    extern "C" fn set_up() {
        // SAFETY: mimalloc's options may be set at any time; these are numbers among them.
        unsafe {
            mi_option_set_default(ALLOW_LARGE_OS_PAGES, 1);
            mi_option_set_default(PURGE_DELAY, KEPT_MS);
        }
    }
    set_up
};

/// How long memory that was freed is kept, in milliseconds. `MIMALLOC_PURGE_DELAY` sets another time.
#[cfg(target_os = "linux")]
const KEPT_MS: std::ffi::c_long = 300_000;

/// `mi_option_allow_large_os_pages` and `mi_option_purge_delay` of mimalloc.h.
#[cfg(target_os = "linux")]
const ALLOW_LARGE_OS_PAGES: std::ffi::c_int = 6;
#[cfg(target_os = "linux")]
const PURGE_DELAY: std::ffi::c_int = 15;

#[cfg(target_os = "linux")]
unsafe extern "C" {
    fn mi_option_set_default(option: std::ffi::c_int, value: std::ffi::c_long);
}
