//! One POST over HTTP/2 whose answer does not end for minutes: `ureq` speaks HTTP/1.1 alone.
//!
//! A connection a request, by TLS where the address says so (then HTTP/2 is agreed on in the handshake), otherwise with
//! HTTP/2 from the first byte on. To be run on a runtime of one thread.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use h2::RecvStream;
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, RootCertStore};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use ureq::http::{Method, Request, Version};

/// How long it may take until the answer begins.
const TIMEOUT: Duration = Duration::from_secs(30);
/// How much may be on its way: some events of 2 MB.
const WINDOW_BYTES: u32 = 4 << 20;

/// An answer that comes.
pub(super) struct Answer {
    pub status: u16,
    body: RecvStream,
}

impl Answer {
    /// More of it; `None` at its end.
    ///
    /// # Errors
    /// When the connection is broken.
    pub async fn chunk(&mut self) -> Result<Option<Bytes>, String> {
        let Some(chunk) = self.body.data().await else { return Ok(None) };
        let chunk = chunk.map_err(|error| error.to_string())?;
        self.body.flow_control().release_capacity(chunk.len()).map_err(|error| error.to_string())?;
        Ok(Some(chunk))
    }
}

/// Posts `body` to `url`, which is `http://HOST` or `https://HOST`, with a port or without.
///
/// # Errors
/// When no answer begins: why, for people.
pub(super) async fn post(url: &str, headers: &[(&str, String)], body: Vec<u8>) -> Result<Answer, String> {
    let (scheme, host) = url.trim_end_matches('/').split_once("://").ok_or("the address is none")?;
    let is_tls = scheme == "https";
    let (name, port) = match host.rsplit_once(':').map(|(name, port)| (name, port.parse())) {
        Some((name, Ok(port))) => (name, port),
        _ => (host, if is_tls { 443 } else { 80 }),
    };
    let answer = async {
        let stream = TcpStream::connect((name.trim_matches(['[', ']']), port)).await;
        let stream = stream.map_err(|error| format!("connect to {host}: {error}"))?;
        stream.set_nodelay(true).map_err(|error| error.to_string())?;
        if is_tls {
            send(encrypt(name, stream).await?, url, headers, body).await
        } else {
            send(stream, url, headers, body).await
        }
    };
    timeout(TIMEOUT, answer).await.map_err(|_| format!("{host} does not answer within {TIMEOUT:?}"))?
}

/// Agrees on TLS, and on HTTP/2 in it.
async fn encrypt(
    name: &str,
    stream: TcpStream,
) -> Result<impl AsyncRead + AsyncWrite + Unpin + Send + 'static, String> {
    let mut roots = RootCertStore::empty();
    roots.extend(webpki_roots::TLS_SERVER_ROOTS.iter().cloned());
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
    let config = config.map_err(|error| error.to_string())?;
    let mut config = config.with_root_certificates(roots).with_no_client_auth();
    config.alpn_protocols = vec![b"h2".to_vec()];
    let server = ServerName::try_from(name.to_string()).map_err(|error| error.to_string())?;
    let stream = TlsConnector::from(Arc::new(config)).connect(server, stream).await;
    let stream = stream.map_err(|error| format!("agree on TLS with {name}: {error}"))?;
    match stream.get_ref().1.alpn_protocol() {
        Some(b"h2") => Ok(stream),
        _ => Err(format!("{name} does not speak HTTP/2")),
    }
}

async fn send<S>(stream: S, url: &str, headers: &[(&str, String)], body: Vec<u8>) -> Result<Answer, String>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let mut builder = h2::client::Builder::new();
    builder.initial_window_size(WINDOW_BYTES).initial_connection_window_size(WINDOW_BYTES).enable_push(false);
    let (client, connection) = builder.handshake(stream).await.map_err(|error| error.to_string())?;
    // It ends with the last of the request and its answer.
    tokio::spawn(async move {
        if let Err(error) = connection.await {
            tracing::debug!("a connection of HTTP/2 ended: {error}");
        }
    });
    let mut request = Request::builder().method(Method::POST).uri(url).version(Version::HTTP_2);
    // Its host is part of the address here.
    for (name, value) in headers.iter().filter(|(name, _)| *name != "host") {
        request = request.header(*name, value);
    }
    let request = request.body(()).map_err(|error| error.to_string())?;
    let mut client = client.ready().await.map_err(|error| error.to_string())?;
    let (answer, mut out) = client.send_request(request, false).map_err(|error| error.to_string())?;
    out.send_data(Bytes::from(body), true).map_err(|error| error.to_string())?;
    let answer = answer.await.map_err(|error| error.to_string())?;
    Ok(Answer { status: answer.status().as_u16(), body: answer.into_body() })
}
