//! What something cost: wall time, CPU time, memory.

use std::time::Instant;

use serde::{Deserialize, Serialize};

/// Wall and CPU seconds of a stretch of work.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct Cost {
    /// Seconds by the clock on the wall.
    pub wall_s: f64,
    /// Seconds of CPU of every thread of the process, user and system.
    pub cpu_s: f64,
}

impl Cost {
    /// What `work` costs; nothing else may run in the process meanwhile.
    ///
    /// # Errors
    /// Those of `work`.
    pub fn of<T, E>(work: impl FnOnce() -> Result<T, E>) -> Result<(Cost, T), E> {
        let (began, before) = (Instant::now(), process_cpu_s());
        let done = work()?;
        Ok((Cost { wall_s: began.elapsed().as_secs_f64(), cpu_s: process_cpu_s() - before }, done))
    }
}

/// CPU seconds of the process so far, of threads that have ended too.
pub fn process_cpu_s() -> f64 {
    cpu_s(libc::CLOCK_PROCESS_CPUTIME_ID)
}

/// CPU seconds of the calling thread so far.
pub fn thread_cpu_s() -> f64 {
    cpu_s(libc::CLOCK_THREAD_CPUTIME_ID)
}

/// CPU seconds of the processes that this one has started and that have ended.
pub fn children_cpu_s() -> f64 {
    let mut usage = std::mem::MaybeUninit::<libc::rusage>::zeroed();
    // SAFETY: the call fills one rusage, and keeps nothing; all zeros are one, too.
    let usage = unsafe {
        libc::getrusage(libc::RUSAGE_CHILDREN, usage.as_mut_ptr());
        usage.assume_init()
    };
    let seconds = |time: libc::timeval| time.tv_sec as f64 + time.tv_usec as f64 * 1e-6;
    seconds(usage.ru_utime) + seconds(usage.ru_stime)
}

fn cpu_s(clock: libc::clockid_t) -> f64 {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the call writes one timespec to a pointer to one, and keeps nothing. Should it ever
    // refuse the clock, the time stays 0.
    unsafe { libc::clock_gettime(clock, &mut time) };
    time.tv_sec as f64 + time.tv_nsec as f64 * 1e-9
}

/// The most memory that the process has had in use, in MiB.
pub fn peak_memory_mib() -> Option<f64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    let kib: f64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kib / 1024.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn work_on_any_thread_is_counted() {
        let work = || {
            let spin = || (0..20_000_000u64).fold(1u64, |x, i| std::hint::black_box(x ^ i));
            std::thread::spawn(spin).join().map_err(drop)
        };
        let before = thread_cpu_s();
        let (cost, _) = Cost::of(work).unwrap();
        assert!(cost.cpu_s > 0.001 && cost.wall_s > 0.001);
        assert!(thread_cpu_s() - before < cost.cpu_s, "this thread only waited");
        assert!(peak_memory_mib().unwrap() > 1.0);
    }
}
