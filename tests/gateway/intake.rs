//! A gateway that takes events, as a process of its own.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Instant;

use levada_connectors::log::{Log, Record, Start};
use tempfile::TempDir;

use super::client::{Answer, PATIENCE, post};
use crate::same_bytes::{levada, succeed};

pub const JSON: &str = "content-type: application/json\r\n";
pub const LINES: &str = "content-type: application/x-ndjson\r\n";
pub const PATH: &str = "/v1/topics/readings/events";

/// A folder of topics, and where a gateway over it says its address.
pub struct Site {
    pub folder: TempDir,
}

/// A gateway that runs.
pub struct Running {
    pub child: Child,
    pub address: SocketAddr,
}

impl Site {
    pub fn new(partitions: &str) -> Site {
        let site = Site { folder: TempDir::new().unwrap() };
        succeed(levada(&["topics", "create", "readings", "--partitions", partitions], &site.data()));
        site
    }

    pub fn data(&self) -> PathBuf {
        self.folder.path().join("data")
    }

    pub fn file(&self, name: &str, text: &str) -> String {
        let path = self.folder.path().join(name);
        std::fs::write(&path, text).unwrap();
        path.to_str().unwrap().to_owned()
    }

    pub fn command(&self, options: &[&str]) -> Command {
        let mut command =
            levada(&["gateway", "--listen", "127.0.0.1:0", "--ingest", "readings"], &self.data());
        command.arg("--address-file").arg(self.folder.path().join("address")).args(options);
        command.stdout(Stdio::null()).stderr(Stdio::null());
        command
    }

    pub fn start(&self, options: &[&str]) -> Running {
        let file = self.folder.path().join("address");
        let _ = std::fs::remove_file(&file);
        let mut child = self.command(options).spawn().unwrap();
        let began = Instant::now();
        loop {
            let written = std::fs::read_to_string(&file).unwrap_or_default();
            if let Ok(address) = written.parse() {
                return Running { child, address };
            }
            assert!(child.try_wait().unwrap().is_none() && began.elapsed() < PATIENCE, "no gateway");
            std::thread::yield_now();
        }
    }

    /// The records of each partition.
    pub fn records(&self, topic: &str) -> Vec<Vec<Record>> {
        let topic = Log::open(self.data()).unwrap().topic(topic).unwrap();
        (0..topic.partitions())
            .map(|partition| {
                let mut reader = topic.reader(partition, Start::Beginning).unwrap();
                let fetched = reader.read(usize::MAX, usize::MAX).unwrap();
                fetched.iter().map(|record| record.to_record()).collect()
            })
            .collect()
    }

    pub fn held(&self, topic: &str) -> u64 {
        held(&self.data(), topic)
    }
}

pub fn held(data: &Path, topic: &str) -> u64 {
    let Ok(topic) = Log::open(data).and_then(|log| log.topic(topic)) else { return 0 };
    (0..topic.partitions()).map(|partition| topic.bounds(partition).unwrap().next).sum()
}

impl Running {
    pub async fn post(&self, query: &str, headers: &str, body: impl AsRef<[u8]>) -> Answer {
        post(self.address, &format!("{PATH}{query}"), headers, body.as_ref()).await
    }

    pub fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Stops as on a signal.
    pub fn stop(mut self) {
        terminate(&self.child);
        assert!(self.child.wait().unwrap().success());
    }
}

impl Drop for Running {
    /// A test that fails leaves no gateway behind.
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

pub fn terminate(child: &Child) {
    assert!(Command::new("kill").arg(child.id().to_string()).status().unwrap().success());
}

pub fn with_key(key: &str) -> String {
    format!("{JSON}idempotency-key: \"{key}\"\r\n")
}
