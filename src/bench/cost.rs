//! What something cost: wall time, CPU time, memory.

use std::process::{Command, Stdio};
use std::time::Instant;

use serde::{Deserialize, Serialize};

use super::{BenchError, median, rounded};

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

/// What a process has measured that did one part of a measurement.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct PartCost {
    /// Wall and CPU.
    #[serde(flatten)]
    pub cost: Cost,
    /// Rows decoded, or written.
    pub rows: u64,
    /// The most memory that it had in use.
    pub peak_memory_mib: Option<f64>,
}

/// Medians of something measured several times.
#[derive(Clone, Debug, Serialize)]
pub struct Measured {
    wall_s: f64,
    cpu_s: f64,
    cpu_ns_per_event: f64,
    events_per_cpu_s: f64,
    events_per_wall_s: f64,
    /// CPU seconds of each repetition.
    each_cpu_s: Vec<f64>,
    each_wall_s: Vec<f64>,
    /// The most that the process ever had in use, with its code.
    peak_memory_mib: Option<f64>,
}

impl Measured {
    /// Of a part that handled so many events each time.
    pub fn of(parts: &[PartCost], events: u64) -> Measured {
        let cpu_s = median(parts.iter().map(|part| part.cost.cpu_s));
        let wall_s = median(parts.iter().map(|part| part.cost.wall_s));
        let memory = parts.iter().filter_map(|part| part.peak_memory_mib).max_by(f64::total_cmp);
        Measured {
            wall_s: rounded(wall_s),
            cpu_s: rounded(cpu_s),
            cpu_ns_per_event: rounded(cpu_s * 1e9 / events as f64),
            events_per_cpu_s: rounded(events as f64 / cpu_s),
            events_per_wall_s: rounded(events as f64 / wall_s),
            each_cpu_s: parts.iter().map(|part| rounded(part.cost.cpu_s)).collect(),
            each_wall_s: parts.iter().map(|part| rounded(part.cost.wall_s)).collect(),
            peak_memory_mib: memory.map(rounded),
        }
    }
}

/// Runs a part of a measurement as a process of its own, which tells what it cost.
///
/// # Errors
/// When it fails.
pub fn measured_apart(mut command: Command, part: &str) -> Result<PartCost, BenchError> {
    let done = command.stdin(Stdio::null()).stderr(Stdio::inherit()).output()?;
    if !done.status.success() {
        return Err(BenchError::Other(format!("measure {part}: {}", done.status)));
    }
    serde_json::from_slice(&done.stdout).map_err(|error| BenchError::Other(error.to_string()))
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

/// CPU seconds of the threads of another process whose names are `meant`; 0 where the system does not tell.
pub fn named_threads_cpu_s(process: u32, meant: impl Fn(&str) -> bool) -> f64 {
    let Ok(threads) = std::fs::read_dir(format!("/proc/{process}/task")) else { return 0.0 };
    let stats =
        threads.flatten().filter_map(|thread| std::fs::read_to_string(thread.path().join("stat")).ok());
    let ticks: f64 = stats.filter_map(|stat| ticks(&stat, &meant)).sum();
    // SAFETY: the call only gives a number.
    let per_second = unsafe { libc::sysconf(libc::_SC_CLK_TCK) };
    ticks / per_second.max(1) as f64
}

/// The ticks of a clock that a thread has used, by its line of `/proc` (proc_pid_stat(5)), if its name is `meant`.
fn ticks(stat: &str, meant: impl Fn(&str) -> bool) -> Option<f64> {
    let (before, after) = stat.rsplit_once(')')?;
    let (_, name) = before.split_once('(')?;
    let used = || after.split_whitespace().skip(11).take(2).map(|field| field.parse::<f64>().ok()).sum();
    meant(name).then(used)?
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
    status_mib("VmHWM:")
}

/// The memory that the process has in use, with its code.
pub fn memory_mib() -> Option<f64> {
    status_mib("VmRSS:")
}

fn status_mib(name: &str) -> Option<f64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix(name))?;
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

    #[test]
    fn a_thread_s_line_tells_what_it_used_whatever_its_name() {
        let line = "71 (check (p) 0) S 1 71 71 0 -1 4194304 120 0 0 0 250 31 0 0 20 0 1 0 9 8 7 6";
        assert_eq!(ticks(line, |name| name == "check (p) 0"), Some(281.0));
        assert_eq!(ticks(line, |name| name == "another"), None);
        let spin = || (0..200_000_000u64).fold(1u64, |x, i| std::hint::black_box(x ^ i));
        let spun = std::thread::Builder::new().name("spinner".into()).spawn(move || {
            spin();
            named_threads_cpu_s(std::process::id(), |name| name == "spinner")
        });
        assert!(spun.unwrap().join().unwrap() > 0.0);
        assert_eq!(named_threads_cpu_s(std::process::id(), |_| false), 0.0);
    }
}
