//! Real servers for tests: each in a folder of its own, on loopback, ended with the test.
//!
//! A server is a child process that the kernel kills when the thread that started it ends, so that none outlives
//! the tests, whatever becomes of them; all are therefore started by one thread that lives as long as the tests do.

#[cfg(feature = "kinesis")]
pub mod fan_out;
#[cfg(feature = "kafka")]
pub mod kafka;
#[cfg(feature = "kinesis")]
pub mod kinesis;
#[cfg(feature = "sql")]
pub mod postgres;
pub mod receiver;
pub mod redis;
#[cfg(feature = "s3")]
pub mod s3;

use std::os::unix::process::CommandExt as _;
use std::process::{Child, Command};
use std::sync::mpsc::{Sender, channel};
use std::sync::{Mutex, OnceLock};

/// Starts a process that ends with this one. The kernel watches the thread, not the process, so it is always the
/// same one.
pub fn spawn(mut command: Command) -> Child {
    static STARTER: OnceLock<Mutex<Sender<(Command, Sender<Child>)>>> = OnceLock::new();
    // SAFETY: the call is one that may be made between fork and exec.
    unsafe {
        command.pre_exec(|| match libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) {
            0 => Ok(()),
            _ => Err(std::io::Error::last_os_error()),
        });
    }
    let starter = STARTER.get_or_init(|| {
        let (sender, receiver) = channel::<(Command, Sender<Child>)>();
        std::thread::spawn(move || {
            for (mut command, answer) in receiver {
                answer.send(command.spawn().unwrap()).unwrap();
            }
        });
        Mutex::new(sender)
    });
    let (answer, child) = channel();
    starter.lock().unwrap().send((command, answer)).unwrap();
    child.recv().unwrap()
}
