//! Events over HTTP: from a client's request to its answer, which comes once they are durable.
//!
//! The gateway is a process of its own; the clients, one a connection, each with one request at a time and a key of its
//! own for each, run in this one. Both share the machine, so what is measured is the two together.

use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use serde::Serialize;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;

use super::{BenchError, rounded};

/// The longest request that is measured: a minute.
const MOST_US: u64 = 60_000_000;
/// How long the gateway may take to listen.
const START_WITHIN: Duration = Duration::from_secs(30);

/// What is measured.
#[derive(Clone, Debug)]
pub struct Options {
    /// Connections that send at once.
    pub connections: usize,
    /// Events a request.
    pub batch: usize,
    /// For how long.
    pub seconds: u64,
}

/// What was found.
#[derive(Debug, Serialize)]
pub struct Report {
    /// Connections that sent at once.
    pub connections: usize,
    /// Events a request.
    pub batch: usize,
    /// Requests that were answered.
    pub requests: u64,
    /// Events a second that became durable.
    pub events_per_second: f64,
    /// From the first byte of a request to the last of its answer, milliseconds.
    pub p50_ms: f64,
    /// The same, 99th percentile.
    pub p99_ms: f64,
    /// The same, the longest.
    pub max_ms: f64,
}

/// A gateway of this binary, which ends with this.
struct Gateway(Child);

impl Drop for Gateway {
    fn drop(&mut self) {
        // It has nothing to lose: what was answered is durable.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Measures.
///
/// # Errors
/// When the gateway does not start, or refuses a request.
pub fn run(options: &Options) -> Result<Report, BenchError> {
    let folder = tempfile::tempdir()?;
    let (gateway, address) = start(folder.path())?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let began = Instant::now();
    let until = began + Duration::from_secs(options.seconds);
    let clients: Vec<_> = (0..options.connections)
        .map(|client| runtime.spawn(post_until(address, client, options.batch, until)))
        .collect();
    let mut all = histogram()?;
    for client in clients {
        let seen =
            runtime.block_on(client).map_err(|error| BenchError::Other(format!("send: {error}")))??;
        all.add(seen).map_err(|error| BenchError::Other(error.to_string()))?;
    }
    let seconds = began.elapsed().as_secs_f64();
    drop(gateway);
    let ms = |us: u64| rounded(us as f64 / 1e3);
    Ok(Report {
        connections: options.connections,
        batch: options.batch,
        requests: all.len(),
        events_per_second: rounded(all.len() as f64 * options.batch as f64 / seconds),
        p50_ms: ms(all.value_at_quantile(0.5)),
        p99_ms: ms(all.value_at_quantile(0.99)),
        max_ms: ms(all.max()),
    })
}

fn histogram() -> Result<Histogram<u64>, BenchError> {
    Histogram::new_with_max(MOST_US, 3).map_err(|error| BenchError::Other(error.to_string()))
}

fn start(folder: &Path) -> Result<(Gateway, SocketAddr), BenchError> {
    let file = folder.join("address");
    let mut command = Command::new(std::env::current_exe()?);
    command.args(["gateway", "--listen", "127.0.0.1:0", "--ingest", "bench"]);
    command.arg("--data").arg(folder.join("data")).arg("--address-file").arg(&file);
    let mut gateway = Gateway(command.stdout(Stdio::null()).stderr(Stdio::null()).spawn()?);
    let began = Instant::now();
    loop {
        if let Ok(address) = std::fs::read_to_string(&file).unwrap_or_default().parse() {
            return Ok((gateway, address));
        }
        if gateway.0.try_wait()?.is_some() || began.elapsed() > START_WITHIN {
            return Err(BenchError::Other("start the gateway".to_owned()));
        }
        std::thread::yield_now();
    }
}

/// One client: a request, its answer, the next.
async fn post_until(
    address: SocketAddr,
    client: usize,
    batch: usize,
    until: Instant,
) -> Result<Histogram<u64>, BenchError> {
    let mut seen = histogram()?;
    let mut stream = BufReader::new(TcpStream::connect(address).await?);
    stream.get_ref().set_nodelay(true)?;
    let mut number = 0u64;
    while Instant::now() < until {
        let request = request(client, number, batch);
        number += 1;
        let began = Instant::now();
        stream.write_all(&request).await?;
        answered(&mut stream).await?;
        // The histogram takes a minute; what is longer counts as one.
        seen.saturating_record(began.elapsed().as_micros() as u64);
    }
    Ok(seen)
}

fn request(client: usize, number: u64, batch: usize) -> Vec<u8> {
    let event = |part: usize| {
        format!(
            r#"{{"id":"{client}-{number}-{part}","user":"u{}","kind":"view","amount":{part}.5,"ok":true,"country":"DE","session":"s{}","at":{}}}"#,
            part % 1000,
            number % 1000,
            1_700_000_000_000 + number
        )
    };
    let body = match batch {
        1 => event(0),
        many => (0..many).map(event).collect::<Vec<_>>().join("\n"),
    };
    let media = if batch == 1 { "application/json" } else { "application/x-ndjson" };
    let head = format!(
        "POST /v1/topics/bench/events HTTP/1.1\r\nhost: bench\r\ncontent-type: {media}\r\n\
         idempotency-key: \"{client}-{number}\"\r\ncontent-length: {}\r\n\r\n",
        body.len()
    );
    [head.into_bytes(), body.into_bytes()].concat()
}

/// Reads an answer, which has to be 200.
async fn answered(stream: &mut BufReader<TcpStream>) -> Result<(), BenchError> {
    let (mut line, mut length, mut status) = (String::new(), 0, String::new());
    loop {
        line.clear();
        stream.read_line(&mut line).await?;
        let text = line.trim_end();
        if status.is_empty() {
            status = text.to_owned();
        }
        if let Some(bytes) = text.strip_prefix("content-length: ") {
            length = bytes.parse().unwrap_or(0);
        }
        if text.is_empty() {
            break;
        }
    }
    let mut body = vec![0; length];
    stream.read_exact(&mut body).await?;
    if status.contains(" 200 ") {
        return Ok(());
    }
    Err(BenchError::Other(format!("send: {status}: {}", String::from_utf8_lossy(&body))))
}
