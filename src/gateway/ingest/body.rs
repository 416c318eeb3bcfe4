//! Reading a request's body, within bounds.
//!
//! Its bytes are counted against what all requests may have in memory as they come, so that what a request says of
//! its length is not trusted. What is too long is read on for a while and dropped: a client that is still sending
//! would otherwise find its connection broken rather than an answer.

use std::sync::Arc;
use std::time::Duration;

use bytes::{Buf, Bytes, BytesMut};
use futures_util::{Stream, StreamExt};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use warp::http::StatusCode;

use super::post::{Reason, Refusal};
use crate::gateway::problem::Problem;

/// A client has this long to send a body.
const BODY_WITHIN: Duration = Duration::from_secs(30);
/// How much of a body that is refused is read on.
const DRAIN_BYTES: usize = 1 << 20;
/// And for how long.
const DRAIN_WITHIN: Duration = Duration::from_secs(1);

/// The body, and the right to have it in memory.
pub async fn read<B: Buf>(
    body: impl Stream<Item = Result<B, warp::Error>>,
    max_bytes: usize,
    waiting: &Arc<Semaphore>,
) -> Result<(Bytes, OwnedSemaphorePermit), Refusal> {
    let mut body = std::pin::pin!(body);
    let taken = tokio::time::timeout(BODY_WITHIN, collect(&mut body, max_bytes, waiting)).await;
    let refusal = match taken {
        Ok(Ok(taken)) => return Ok(taken),
        Ok(Err(refusal)) => refusal,
        Err(_) => {
            let detail = format!("the body did not come within {} seconds", BODY_WITHIN.as_secs());
            return Err(Refusal::new(Reason::Malformed, Problem::new(StatusCode::REQUEST_TIMEOUT, detail)));
        }
    };
    let drain = async {
        let mut drained = 0;
        while let Some(Ok(part)) = body.next().await {
            drained += part.remaining();
            if drained > DRAIN_BYTES {
                break;
            }
        }
    };
    // Whether it ended or not, the answer is the same.
    let _ = tokio::time::timeout(DRAIN_WITHIN, drain).await;
    Err(refusal)
}

async fn collect<B: Buf>(
    body: &mut (impl Stream<Item = Result<B, warp::Error>> + Unpin),
    max_bytes: usize,
    waiting: &Arc<Semaphore>,
) -> Result<(Bytes, OwnedSemaphorePermit), Refusal> {
    let full =
        || Refusal::new(Reason::QueueFull, Problem::unavailable("more is waiting than the gateway holds"));
    let mut room = Arc::clone(waiting).try_acquire_many_owned(0).map_err(|_| full())?;
    let mut bytes = BytesMut::new();
    while let Some(part) = body.next().await {
        let mut part = part.map_err(|error| {
            tracing::debug!(%error, "a body broke off");
            Refusal::new(Reason::Malformed, Problem::bad_request("the body broke off"))
        })?;
        let length = part.remaining();
        if bytes.len() + length > max_bytes {
            let detail = format!("the body is longer than {max_bytes} bytes; send it in parts");
            let problem = Problem::new(StatusCode::PAYLOAD_TOO_LARGE, detail).with("max_bytes", max_bytes);
            return Err(Refusal::new(Reason::BodyTooLarge, problem));
        }
        let more = Arc::clone(waiting).try_acquire_many_owned(length as u32).map_err(|_| full())?;
        room.merge(more);
        bytes.extend_from_slice(&part.copy_to_bytes(length));
    }
    Ok((bytes.freeze(), room))
}
