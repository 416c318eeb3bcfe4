//! A PostgreSQL server, with a cluster of its own.

use std::fs::File;
use std::io::Write as _;
use std::net::TcpListener;
use std::os::unix::fs::chown;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use postgres::{Client, Config, NoTls};
use tempfile::TempDir;

use super::spawn;

/// The password of the user `me`.
pub const PASSWORD: &str = "s3cret word";

/// A server that is stopped when it is dropped.
pub struct Postgres {
    folder: TempDir,
    port: u16,
    options: Vec<String>,
    child: Child,
}

impl Postgres {
    pub fn start() -> Postgres {
        Postgres::with(&[])
    }

    /// One with settings, as `name=value`.
    pub fn with(options: &[&str]) -> Postgres {
        let mut folder = TempDir::new().unwrap();
        create(folder.path());
        let options: Vec<String> = options.iter().map(|option| option.to_string()).collect();
        // Somebody may take the port before the server does.
        for _ in 0..10 {
            let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
            let child = launch(folder.path(), port, &options);
            let mut server = Postgres { folder, port, options: options.clone(), child };
            if server.answers() {
                return server;
            }
            folder = std::mem::replace(&mut server.folder, TempDir::new().unwrap());
        }
        panic!("no PostgreSQL would start; scripts/setup.sh test installs it");
    }

    /// Its address, for the user `me`.
    pub fn url(&self) -> String {
        format!("postgres://me@127.0.0.1:{}/postgres", self.port)
    }

    fn config(&self) -> Config {
        let mut config: Config = self.url().parse().unwrap();
        config.password(PASSWORD).connect_timeout(Duration::from_secs(5));
        config
    }

    pub fn connection(&self) -> Client {
        self.config().connect(NoTls).unwrap()
    }

    /// Where it keeps a file that it can read.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// What it has logged.
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.folder.path().join("log")).unwrap()
    }

    /// Stops it as it stops by itself: whoever is connected is cut off.
    pub fn stop(&mut self) {
        self.signal("INT");
    }

    pub fn begin(&mut self) {
        self.child = launch(self.folder.path(), self.port, &self.options);
        assert!(self.answers(), "the server did not start again: {}", self.log());
    }

    fn signal(&mut self, signal: &str) {
        let _ = Command::new("kill").arg(format!("-{signal}")).arg(self.child.id().to_string()).status();
        let _ = self.child.wait();
    }

    /// Whether it does within a while.
    fn answers(&mut self) -> bool {
        let until = Instant::now() + Duration::from_secs(60);
        while Instant::now() < until && self.child.try_wait().unwrap().is_none() {
            if self.config().connect(NoTls).is_ok() {
                return true;
            }
            std::thread::yield_now();
        }
        false
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        // At once; its own processes end with it.
        self.signal("QUIT");
    }
}

/// A program of PostgreSQL. Debian keeps them apart from the others, one folder a version.
fn program(name: &str) -> PathBuf {
    let versions = std::fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
    let programs = versions.map(|version| version.path().join("bin").join(name)).filter(|path| path.exists());
    programs.max().unwrap_or_else(|| name.into())
}

/// Runs a program of PostgreSQL as somebody else than root, as whom it refuses to run.
fn command(name: &str) -> Command {
    let program = program(name);
    if user("-u").is_none() {
        return Command::new(program);
    }
    let mut command = Command::new("setpriv");
    command.args(["--reuid=postgres", "--regid=postgres", "--clear-groups", "--pdeathsig=keep"]).arg(program);
    command
}

/// The number of Debian's user for PostgreSQL, where this is root.
fn user(which: &str) -> Option<u32> {
    let id = |arguments: &[&str]| -> Option<u32> {
        let output = Command::new("id").args(arguments).output().ok()?;
        String::from_utf8(output.stdout).ok()?.trim().parse().ok()
    };
    match id(&["-u"]) {
        Some(0) => {
            Some(id(&[which, "postgres"]).expect("scripts/setup.sh test installs PostgreSQL and its user"))
        }
        _ => None,
    }
}

/// Gives a file to whoever runs the server.
pub fn give(path: &Path) {
    if let (Some(user), Some(group)) = (user("-u"), user("-g")) {
        chown(path, Some(user), Some(group)).unwrap();
    }
}

fn create(folder: &Path) {
    give(folder);
    let password = folder.join("password");
    File::create(&password).unwrap().write_all(PASSWORD.as_bytes()).unwrap();
    give(&password);
    let mut initdb = command("initdb");
    initdb.args(["--username=me", "--auth=scram-sha-256", "--encoding=UTF8", "--locale=C", "--no-sync"]);
    initdb.arg(format!("--pwfile={}", password.display())).arg("-D").arg(folder.join("data"));
    let output = initdb.current_dir("/").output().expect("scripts/setup.sh test installs PostgreSQL");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

fn launch(folder: &Path, port: u16, options: &[String]) -> Child {
    let log = File::options().create(true).append(true).open(folder.join("log")).unwrap();
    let mut server = command("postgres");
    server.arg("-D").arg(folder.join("data")).args(["-h", "127.0.0.1", "-p", &port.to_string()]);
    let always =
        ["unix_socket_directories=", "fsync=off", "shared_buffers=16MB", "max_prepared_transactions=2"];
    for option in always.into_iter().chain(options.iter().map(String::as_str)) {
        server.args(["-c", option]);
    }
    server.current_dir("/").stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
    spawn(server)
}
