//! A Redis server.

use std::fs::File;
use std::net::TcpListener;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use redis::{Client, Connection};
use tempfile::TempDir;

use super::spawn;

/// A server that is killed when it is dropped.
pub struct Redis {
    folder: TempDir,
    port: u16,
    options: Vec<String>,
    child: Child,
}

impl Redis {
    /// One that keeps nothing.
    pub fn start() -> Redis {
        Redis::with(&["--appendonly", "no"])
    }

    /// One that has what it acknowledged on its disk, and so may be killed.
    pub fn durable() -> Redis {
        Redis::with(&["--appendonly", "yes", "--appendfsync", "always"])
    }

    pub fn with(options: &[&str]) -> Redis {
        let options: Vec<String> = options.iter().map(|option| option.to_string()).collect();
        // Somebody may take the port before the server does.
        for _ in 0..10 {
            let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
            let folder = TempDir::new().unwrap();
            let child = launch(&folder, port, &options);
            let mut server = Redis { folder, port, options: options.clone(), child };
            if server.answers() {
                return server;
            }
        }
        panic!("no redis-server would start; scripts/setup.sh test installs it");
    }

    pub fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }

    pub fn connection(&self) -> Connection {
        Client::open(self.url()).unwrap().get_connection().unwrap()
    }

    /// Kills it and starts it again, with what it had on its disk.
    pub fn restart(&mut self) {
        self.kill();
        self.begin();
    }

    pub fn kill(&mut self) {
        let _ = self.child.kill();
        self.child.wait().unwrap();
    }

    pub fn begin(&mut self) {
        self.child = launch(&self.folder, self.port, &self.options);
        assert!(self.answers(), "the server did not start again");
    }

    /// Whether it does within a while.
    fn answers(&mut self) -> bool {
        let until = Instant::now() + Duration::from_secs(20);
        while Instant::now() < until && self.child.try_wait().unwrap().is_none() {
            let asked = Client::open(self.url()).unwrap().get_connection();
            // One that wants a password answers too.
            match asked.and_then(|mut connection| redis::cmd("PING").query::<String>(&mut connection)) {
                Ok(_) => return true,
                Err(error) if error.code() == Some("NOAUTH") => return true,
                Err(_) => std::thread::yield_now(),
            }
        }
        false
    }
}

fn launch(folder: &TempDir, port: u16, options: &[String]) -> Child {
    let log = File::create(folder.path().join("log")).unwrap();
    let mut command = Command::new("redis-server");
    command
        .args(["--bind", "127.0.0.1", "--save", "", "--port", &port.to_string(), "--dir"])
        .arg(folder.path());
    command.args(options).stdin(Stdio::null()).stdout(log).stderr(Stdio::null());
    spawn(command)
}

impl Drop for Redis {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
