//! Serves a job's metrics over HTTP, from a thread of its own.

use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::time::Duration;

use prometheus_client::registry::Registry;

use super::prometheus::encode;

/// How long a scraper may take to ask.
const PATIENCE: Duration = Duration::from_secs(5);
/// How much of a request is read at most.
const MAX_REQUEST_BYTES: u64 = 8192;

/// Starts serving `GET /metrics` at `address`; gives the address that was bound.
///
/// # Errors
/// When the address cannot be bound.
pub fn metrics(address: SocketAddr, registry: Registry) -> Result<SocketAddr, String> {
    let failed = |error: std::io::Error| {
        let taken = error.kind() == std::io::ErrorKind::AddrInUse;
        let help = if taken { "; --metrics takes another, as 127.0.0.1:0 for any that is free" } else { "" };
        format!("failed to serve metrics at {address}: {error}{help}")
    };
    let listener = TcpListener::bind(address).map_err(failed)?;
    let bound = listener.local_addr().map_err(failed)?;
    std::thread::Builder::new()
        .name("metrics".into())
        .spawn(move || {
            // One scraper at a time: it is one a quarter of a minute.
            for connection in listener.incoming().flatten() {
                if let Err(error) = answer(connection, &registry) {
                    tracing::debug!("a scrape failed: {error}");
                }
            }
        })
        .map_err(failed)?;
    Ok(bound)
}

fn answer(mut connection: TcpStream, registry: &Registry) -> std::io::Result<()> {
    connection.set_read_timeout(Some(PATIENCE))?;
    connection.set_write_timeout(Some(PATIENCE))?;
    let mut request = String::new();
    let mut reader = BufReader::new(std::io::Read::take(connection.try_clone()?, MAX_REQUEST_BYTES));
    reader.read_line(&mut request)?;
    let (status, kind, body) = if request.starts_with("GET /metrics ") {
        ("200 OK", "application/openmetrics-text; version=1.0.0; charset=utf-8", encode(registry))
    } else {
        ("404 Not Found", "text/plain; charset=utf-8", "metrics are at /metrics\n".to_string())
    };
    let length = body.len();
    write!(
        connection,
        "HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{body}"
    )
}
