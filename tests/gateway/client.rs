//! A client of a few lines: HTTP/1.1 over a socket, and event streams.

use std::net::SocketAddr;
use std::time::Duration;

use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;

/// A test that waits longer than this for anything has failed.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// An answer.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub head: String,
    pub body: Vec<u8>,
}

impl Answer {
    /// A header's value; empty without it.
    pub fn header(&self, name: &str) -> &str {
        let found = self.head.lines().filter_map(|line| line.split_once(": "));
        found.filter(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value).next().unwrap_or("")
    }

    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }
}

/// One request on a connection of its own.
pub async fn request(address: SocketAddr, method: &str, path: &str, headers: &str) -> Answer {
    attempt(address, method, path, headers, None).await.expect("an answer")
}

/// A request with a body, on a connection of its own.
pub async fn post(address: SocketAddr, path: &str, headers: &str, body: &[u8]) -> Answer {
    attempt(address, "POST", path, headers, Some(body)).await.expect("an answer")
}

/// As [`request`], of a gateway that may go away at any time.
pub async fn attempt(
    address: SocketAddr,
    method: &str,
    path: &str,
    headers: &str,
    body: Option<&[u8]>,
) -> std::io::Result<Answer> {
    let exchange = async {
        let mut stream = TcpStream::connect(address).await?;
        let length = body.map(|body| format!("content-length: {}\r\n", body.len())).unwrap_or_default();
        let head =
            format!("{method} {path} HTTP/1.1\r\nhost: test\r\nconnection: close\r\n{length}{headers}\r\n");
        stream.write_all(head.as_bytes()).await?;
        // A gateway that does not want it all may answer before it has it.
        let _ = stream.write_all(body.unwrap_or_default()).await;
        answer(&mut stream).await
    };
    tokio::time::timeout(PATIENCE, exchange).await.expect("an answer in time")
}

/// The answer that comes on a connection which ends with it.
pub async fn answer(stream: &mut TcpStream) -> std::io::Result<Answer> {
    let mut bytes = Vec::new();
    stream.read_to_end(&mut bytes).await?;
    let split = bytes.windows(4).position(|window| window == b"\r\n\r\n");
    let split = split.ok_or(std::io::ErrorKind::UnexpectedEof)?;
    let head = String::from_utf8(bytes[..split].to_vec()).expect("UTF-8");
    let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).expect("a status");
    let body = bytes[split + 4..].to_vec();
    Ok(Answer { status, head, body })
}

pub async fn get(address: SocketAddr, path: &str) -> Answer {
    request(address, "GET", path, "").await
}

/// An event of a stream.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Event {
    pub id: String,
    pub name: String,
    pub data: String,
}

impl Event {
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.data).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }
}

/// An event stream; dropping it is a disconnect.
pub struct Stream {
    stream: BufReader<TcpStream>,
    /// Body bytes that do not make a whole event yet.
    rest: Vec<u8>,
}

impl Stream {
    /// Connects; `id` as a browser sends it when it comes back.
    pub async fn open(address: SocketAddr, path: &str, id: Option<&str>) -> Stream {
        let mut stream = TcpStream::connect(address).await.expect("a connection");
        let last = id.map(|id| format!("last-event-id: {id}\r\n")).unwrap_or_default();
        let head = format!("GET {path} HTTP/1.1\r\nhost: test\r\naccept: text/event-stream\r\n{last}\r\n");
        stream.write_all(head.as_bytes()).await.expect("sent");
        let mut stream = Stream { stream: BufReader::new(stream), rest: Vec::new() };
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(stream.stream.read_u8().await.expect("a head"));
        }
        let head = String::from_utf8_lossy(&head);
        assert!(head.starts_with("HTTP/1.1 200"), "{head}");
        assert!(head.contains("content-type: text/event-stream"), "{head}");
        stream
    }

    /// The next event; None at the end of the stream.
    pub async fn next(&mut self) -> Option<Event> {
        tokio::time::timeout(PATIENCE, self.read()).await.expect("an event in time")
    }

    /// The next event that is a record.
    pub async fn record(&mut self) -> Option<Event> {
        loop {
            let event = self.next().await?;
            if event.name.is_empty() && !event.data.is_empty() {
                return Some(event);
            }
        }
    }

    async fn read(&mut self) -> Option<Event> {
        loop {
            if let Some(end) = self.rest.windows(2).position(|window| window == b"\n\n") {
                let text = String::from_utf8(self.rest.drain(..end + 2).collect()).expect("UTF-8");
                let mut event = Event::default();
                for line in text.lines() {
                    match line.split_once(": ") {
                        Some(("id", id)) => event.id = id.to_owned(),
                        Some(("event", name)) => event.name = name.to_owned(),
                        Some(("data", data)) => event.data = data.to_owned(),
                        _ => {}
                    }
                }
                return Some(event);
            }
            let chunk = self.chunk().await?;
            self.rest.extend_from_slice(&chunk);
        }
    }

    /// A chunk of the chunked encoding; None at its end.
    async fn chunk(&mut self) -> Option<Vec<u8>> {
        let mut line = Vec::new();
        while !line.ends_with(b"\r\n") {
            line.push(self.stream.read_u8().await.ok()?);
        }
        let size = usize::from_str_radix(std::str::from_utf8(&line).ok()?.trim(), 16).ok()?;
        let mut chunk = vec![0; size + 2];
        self.stream.read_exact(&mut chunk).await.ok()?;
        chunk.truncate(size);
        (size > 0).then_some(chunk)
    }
}
