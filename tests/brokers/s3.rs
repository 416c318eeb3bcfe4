//! A server that answers as Amazon S3 does (moto, from PyPI), and a way to it that can be closed.
//!
//! ```text
//!  levada ──► S3 (here: open or closed) ──► s3.py, moto
//! ```
//!
//! It comes by `scripts/setup.sh test`. It checks signatures, and who may do what.

use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::sync::{Arc, Mutex};

use serde_json::Value;
use tempfile::TempDir;

use super::spawn;

/// The bucket that there is.
pub const BUCKET: &str = "levada";

/// A server that ends when it is dropped.
pub struct S3 {
    child: Child,
    asked: Mutex<(ChildStdin, BufReader<ChildStdout>)>,
    way: Arc<Way>,
    address: SocketAddr,
    id: String,
    secret: String,
    _folder: TempDir,
}

/// The way to it.
#[derive(Default)]
struct Way {
    closed: AtomicBool,
    open: Mutex<Vec<TcpStream>>,
}

impl S3 {
    pub fn start() -> S3 {
        let cache = std::env::var_os("LEVADA_CACHE").map(PathBuf::from).unwrap_or_else(|| {
            Path::new(&std::env::var_os("HOME").unwrap_or_default()).join(".cache/levada")
        });
        let folder = TempDir::new().unwrap();
        let script = folder.path().join("s3.py");
        std::fs::write(&script, include_str!("s3.py")).unwrap();
        let mut command = Command::new(cache.join("venv/bin/python"));
        command.arg(script).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = spawn(command);
        let mut said = BufReader::new(child.stdout.take().unwrap());
        let first = answer(&mut said, "moto did not start; scripts/setup.sh test installs it");
        let asked = Mutex::new((child.stdin.take().unwrap(), said));
        let text = |name: &str| first[name].as_str().unwrap().to_string();
        let server: SocketAddr = text("address").parse().unwrap();
        let way = Arc::new(Way::default());
        let address = way.begin(server);
        S3 { child, asked, way, address, id: text("id"), secret: text("secret"), _folder: folder }
    }

    /// What a job file says of a place in the bucket.
    pub fn settings(&self, prefix: &str) -> String {
        format!(
            "[job.checkpoints]\nurl = \"s3://{BUCKET}/{prefix}\"\nendpoint = \"{}\"\nallow_http = true\n",
            self.endpoint()
        )
    }

    pub fn endpoint(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Gives a command the keys.
    pub fn keys<'c>(&self, command: &'c mut Command) -> &'c mut Command {
        command.env("AWS_ACCESS_KEY_ID", &self.id).env("AWS_SECRET_ACCESS_KEY", &self.secret)
    }

    /// Closes the way, and breaks off what is on it.
    pub fn close(&self) {
        self.way.closed.store(true, SeqCst);
        for stream in self.way.open.lock().unwrap().drain(..) {
            let _ = stream.shutdown(Shutdown::Both);
        }
    }

    pub fn open(&self) {
        self.way.closed.store(false, SeqCst);
    }

    /// The keys of all objects that begin so.
    pub fn list(&self, prefix: &str) -> Vec<String> {
        let keys = self.ask(&format!("list {prefix}"));
        keys.as_array().unwrap().iter().map(|key| key.as_str().unwrap().to_string()).collect()
    }

    /// Makes another byte of one of an object's.
    pub fn damage(&self, key: &str) {
        self.ask(&format!("damage {key}"));
    }

    pub fn delete(&self, key: &str) {
        self.ask(&format!("delete {key}"));
    }

    /// Whether whoever has the keys may do anything.
    pub fn allow(&self, anything: bool) {
        self.ask(&format!("allow {anything}"));
    }

    fn ask(&self, what: &str) -> Value {
        let mut asked = self.asked.lock().unwrap();
        writeln!(asked.0, "{what}").unwrap();
        answer(&mut asked.1, what)
    }
}

fn answer(said: &mut BufReader<ChildStdout>, what: &str) -> Value {
    let mut line = String::new();
    said.read_line(&mut line).unwrap();
    serde_json::from_str(&line).unwrap_or_else(|_| panic!("{what}: {line:?}"))
}

impl Way {
    fn begin(self: &Arc<Way>, server: SocketAddr) -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let way = Arc::clone(self);
        // It ends with the tests.
        std::thread::spawn(move || {
            for outside in listener.incoming().flatten() {
                if way.closed.load(SeqCst) {
                    continue;
                }
                let Ok(inside) = TcpStream::connect(server) else { continue };
                let both = [(&outside, &inside), (&inside, &outside)];
                for (from, to) in both.map(|(from, to)| (from.try_clone().unwrap(), to.try_clone().unwrap()))
                {
                    std::thread::spawn(move || pass(&from, &to));
                }
                let mut open = way.open.lock().unwrap();
                open.push(outside);
                if way.closed.load(SeqCst) {
                    open.drain(..).for_each(|stream| drop(stream.shutdown(Shutdown::Both)));
                }
            }
        });
        address
    }
}

fn pass(mut from: &TcpStream, mut to: &TcpStream) {
    let _ = std::io::copy(&mut from, &mut to);
    let _ = to.shutdown(Shutdown::Both);
}

impl Drop for S3 {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
