//! Taking connections: our own loop around hyper, for the peer's address, for bounds, and for an end that
//! lets answers finish.
//!
//! At the end, no more connections are taken, streams end, answers that have begun get
//! [`FINISH_WITHIN`], and what is left is cut off.

use std::future::Future;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use hyper::body::Incoming;
use hyper::service::{Service, service_fn};
use hyper::{Request, server::conn::http1};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use super::Shared;
use super::metrics::OfStatus;
use super::routes::routes;

/// The most connections; further ones wait in the operating system's queue.
const MAX_CONNECTIONS: usize = 4096;
/// A client has this long to send a request's head.
const HEAD_WITHIN: Duration = Duration::from_secs(15);
/// The longest head of a request; a cursor of many partitions is long.
const MAX_HEAD_BYTES: usize = 64 << 10;
/// How long answers may take to finish at the end.
const FINISH_WITHIN: Duration = Duration::from_secs(5);
/// After a failed accept (too many open files) it is tried again this much later.
const ACCEPT_AGAIN_AFTER: Duration = Duration::from_millis(100);

/// Whose request it is: the address at the other end of the connection.
#[derive(Clone, Copy, Debug)]
pub struct Peer(pub IpAddr);

/// Serves until `shutdown` is done.
pub async fn serve(listener: TcpListener, shared: Arc<Shared>, shutdown: impl Future<Output = ()>) {
    let service = TowerToHyperService::new(warp::service(routes(Arc::clone(&shared))));
    let room = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    let mut connections = JoinSet::new();
    let mut shutdown = std::pin::pin!(shutdown);
    loop {
        let accepted = tokio::select! {
            accepted = accept(&listener, &room) => accepted,
            Some(_) = connections.join_next() => continue,
            () = &mut shutdown => break,
        };
        let Some((stream, peer, permit)) = accepted else { break };
        let (service, shared) = (service.clone(), Arc::clone(&shared));
        connections.spawn(async move {
            shared.metrics.connections.inc();
            connection(stream, peer, service, &shared).await;
            shared.metrics.connections.dec();
            drop(permit);
        });
    }
    drop(listener);
    shared.stopping.send_replace(true);
    let finished =
        tokio::time::timeout(FINISH_WITHIN, async { while connections.join_next().await.is_some() {} });
    if finished.await.is_err() {
        tracing::warn!(connections = connections.len(), "connections that did not finish are cut off");
    }
}

async fn accept(
    listener: &TcpListener,
    room: &Arc<Semaphore>,
) -> Option<(TcpStream, SocketAddr, tokio::sync::OwnedSemaphorePermit)> {
    // It is never closed, so there is always a permit in the end.
    let permit = Arc::clone(room).acquire_owned().await.ok()?;
    loop {
        match listener.accept().await {
            Ok((stream, peer)) => return Some((stream, peer, permit)),
            Err(error) => {
                tracing::warn!(%error, "a connection could not be taken");
                tokio::time::sleep(ACCEPT_AGAIN_AFTER).await;
            }
        }
    }
}

async fn connection<S>(stream: TcpStream, peer: SocketAddr, service: S, shared: &Arc<Shared>)
where
    S: Service<Request<Incoming>, Response = warp::reply::Response, Error = std::convert::Infallible>,
{
    // Events are small and wanted now. Where that is refused, they are late.
    let _ = stream.set_nodelay(true);
    let counted = service_fn(|mut request: Request<Incoming>| {
        request.extensions_mut().insert(Peer(peer.ip()));
        let (method, path) = (request.method().clone(), request.uri().path().to_owned());
        let answer = service.call(request);
        async move {
            let response = answer.await?;
            let code = response.status().as_u16();
            tracing::debug!(%peer, %method, path, code, "answered");
            shared.metrics.requests.get_or_create(&OfStatus { code }).inc();
            Ok::<_, std::convert::Infallible>(response)
        }
    });
    let mut stopping = shared.stopping.subscribe();
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_WITHIN)
        .max_buf_size(MAX_HEAD_BYTES)
        .serve_connection(TokioIo::new(stream), counted);
    let mut connection = std::pin::pin!(connection);
    let done = tokio::select! {
        done = connection.as_mut() => done,
        () = async { _ = stopping.wait_for(|stopping| *stopping).await } => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = done {
        tracing::debug!(%peer, %error, "a connection ended early");
    }
}
