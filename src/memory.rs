//! The program's memory: its allocator, and how that is set up before `main`.

#![allow(unsafe_code)]

use mimalloc::MiMalloc;

/// Blocks of a megabyte go from the thread that reads to the one that decodes, chunk after chunk. The C
/// library's allocator gives such memory back to the system and asks for it again.
#[global_allocator]
static ALLOCATOR: MiMalloc = MiMalloc;

/// What a million keys have changed is some 50 MB, handed over every few seconds, and first touching so much memory in
/// pages of 4 KiB costs more than writing it: a history of 8 s took 13.5 s with a checkpoint every second, in pages of
/// 2 MiB 9.3 s. Linux gives them to who asks, and mimalloc asks if it is told to before it gets its first memory, so
/// before `main`.
#[cfg(target_os = "linux")]
#[used]
// SAFETY: what stands in this section is called once, at the start of the program, by the one thread that there is.
#[unsafe(link_section = ".init_array")]
static SET_UP: extern "C" fn() = {
    extern "C" fn set_up() {
        // SAFETY: mimalloc's options may be set at any time; this one is a number among them.
        unsafe { mi_option_enable(ALLOW_LARGE_OS_PAGES) };
    }
    set_up
};

/// `mi_option_allow_large_os_pages` of mimalloc.h.
#[cfg(target_os = "linux")]
const ALLOW_LARGE_OS_PAGES: std::ffi::c_int = 6;

#[cfg(target_os = "linux")]
unsafe extern "C" {
    fn mi_option_enable(option: std::ffi::c_int);
}
