//! A receiver of webhooks, which fails, stalls, refuses and writes down what it got.

use std::collections::HashMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::process::Child;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

/// A test that waits longer than this for anything has failed.
const PATIENCE: Duration = Duration::from_secs(60);

/// A request as it came.
#[derive(Clone, Debug)]
pub struct Received {
    pub headers: HashMap<String, String>,
    pub body: String,
}

/// What the server does with it.
pub enum Reply {
    /// Answers with this status, these headers and this body.
    Status(u16, &'static str, &'static str),
    /// Never answers.
    Stall,
    /// Takes it, and the answer is lost with the connection.
    Lose,
    /// The connection is lost before anything was taken.
    Cut,
}

type Script = dyn Fn(usize, &Received) -> Reply + Send + Sync;

/// Answers as the script says, which is told how many requests came before.
pub struct Receiver {
    pub address: SocketAddr,
    received: Arc<Mutex<Vec<Received>>>,
}

impl Receiver {
    pub fn start(script: impl Fn(usize, &Received) -> Reply + Send + Sync + 'static) -> Receiver {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let received = Arc::new(Mutex::new(Vec::new()));
        let (kept, script): (_, Arc<Script>) = (Arc::clone(&received), Arc::new(script));
        // It ends with the test.
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (kept, script) = (Arc::clone(&kept), Arc::clone(&script));
                std::thread::spawn(move || while serve(&stream, &kept, &*script).is_some() {});
            }
        });
        Receiver { address, received }
    }

    pub fn received(&self) -> Vec<Received> {
        self.received.lock().unwrap().clone()
    }

    /// Waits for so many requests.
    pub fn until(&self, requests: usize, child: &mut Child) {
        let began = Instant::now();
        while self.received.lock().unwrap().len() < requests && child.try_wait().unwrap().is_none() {
            assert!(began.elapsed() < PATIENCE, "no {requests} requests");
            std::thread::yield_now();
        }
    }
}

/// One request of a connection; None at its end.
fn serve(stream: &TcpStream, received: &Mutex<Vec<Received>>, script: &Script) -> Option<()> {
    let mut reader = BufReader::new(stream);
    let mut headers = HashMap::new();
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line).ok()? == 0 {
            return None;
        }
        if line == "\r\n" {
            break;
        }
        if let Some((name, value)) = line.trim_end().split_once(": ") {
            headers.insert(name.to_ascii_lowercase(), value.to_owned());
        }
    }
    let mut body = vec![0; headers.get("content-length")?.parse().ok()?];
    reader.read_exact(&mut body).ok()?;
    let request = Received { headers, body: String::from_utf8(body).unwrap() };
    let mut all = received.lock().unwrap();
    let reply = script(all.len(), &request);
    if !matches!(reply, Reply::Cut) {
        all.push(request);
    }
    drop(all);
    match reply {
        Reply::Status(status, headers, body) => {
            let length = body.len();
            let answer = format!("HTTP/1.1 {status} X\r\ncontent-length: {length}\r\n{headers}\r\n{body}");
            (&*stream).write_all(answer.as_bytes()).ok()
        }
        Reply::Stall => {
            // Until the other side has had enough of it.
            let _ = reader.read(&mut [0]);
            None
        }
        Reply::Lose | Reply::Cut => {
            let _ = stream.shutdown(Shutdown::Both);
            None
        }
    }
}
