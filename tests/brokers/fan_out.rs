//! What of kinesis-local has to be passed on in the midst of an answer: the events of a subscription, over HTTP/2.
//!
//! Two things are added to it. An event can be held back, damaged, or be the last one. And kinesis-local does not say when
//! a shard has ended, as Kinesis does with the children in its last event; so, where an event has no record, it is asked by
//! GetRecords whether there will be more, and if not, the event becomes the last one.

use std::net::TcpStream;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use h2::server::SendResponse;
use hyper::http::{Request, Response};
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::UnixStream;

use super::kinesis::{Fault, Kinesis, Rules, Server};

/// What is done to an event of a subscription.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnEvent {
    Pass,
    /// A bit of it is changed.
    Damage,
    /// It is passed, and the subscription is over.
    Last,
    /// It is not passed: the connection is lost.
    Lose,
}

/// Serves a connection that speaks HTTP/2.
pub fn serve(stream: TcpStream, rules: Arc<Rules>) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        stream.set_nonblocking(true).unwrap();
        let stream = tokio::net::TcpStream::from_std(stream).unwrap();
        let Ok(mut connection) = h2::server::handshake(stream).await else { return };
        while let Some(Ok((request, respond))) = connection.accept().await {
            tokio::spawn(answer(request, respond, Arc::clone(&rules)));
        }
    });
}

async fn answer(
    request: Request<h2::RecvStream>,
    mut respond: SendResponse<Bytes>,
    rules: Arc<Rules>,
) -> Option<()> {
    let target = request.headers()["x-amz-target"].to_str().unwrap().to_owned();
    let action = target.rsplit('.').next().unwrap().to_owned();
    assert_eq!(action, "SubscribeToShard", "all else comes over HTTP/1.1");
    assert!(request.headers()["authorization"].to_str().unwrap().starts_with("AWS4-HMAC-SHA256 "));
    let mut body = request.into_body();
    let mut arguments = BytesMut::new();
    while let Some(Ok(chunk)) = body.data().await {
        let _ = body.flow_control().release_capacity(chunk.len());
        arguments.extend_from_slice(&chunk);
    }
    let arguments: Value = serde_json::from_slice(&arguments).unwrap();
    let refusal = match rules.of(&action, &arguments) {
        Fault::None => None,
        Fault::Refuse(status, kind) => Some((status, kind)),
        Fault::Lose | Fault::Change(..) => {
            respond.send_reset(h2::Reason::INTERNAL_ERROR);
            return None;
        }
    };
    if let Some((status, kind)) = refusal {
        let said = json!({ "__type": kind, "message": "as the test wants it" }).to_string();
        let head = Response::builder().status(status).body(()).unwrap();
        return respond.send_response(head, false).ok()?.send_data(said.into(), true).ok();
    }
    let mut inside = BufReader::new(UnixStream::connect(Server::shared().socket()).await.ok()?);
    inside.write_all(&Server::request(&action, &arguments)).await.ok()?;
    loop {
        let mut line = String::new();
        inside.read_line(&mut line).await.ok()?;
        if line == "\r\n" {
            break;
        }
    }
    let head =
        Response::builder().header("content-type", "application/vnd.amazon.eventstream").body(()).unwrap();
    let mut out = respond.send_response(head, false).ok()?;
    let mut bytes = Vec::new();
    loop {
        // What it cannot get rid of it does not read.
        tokio::select! {
            chunk = chunk(&mut inside) => bytes.extend(chunk?),
            _ = std::future::poll_fn(|context| out.poll_reset(context)) => return None,
        }
        while let Some(event) = take(&mut bytes) {
            let (event, ends) = ended(event, &arguments);
            let mut done = rules.on_event();
            if done == OnEvent::Pass && ends {
                done = OnEvent::Last;
            }
            let mut message = event;
            match done {
                OnEvent::Lose => {
                    out.send_reset(h2::Reason::INTERNAL_ERROR);
                    return None;
                }
                OnEvent::Damage => {
                    let middle = message.len() / 2;
                    message[middle] ^= 1;
                }
                OnEvent::Pass | OnEvent::Last => {}
            }
            out.send_data(message.into(), done == OnEvent::Last).ok()?;
            if done == OnEvent::Last {
                return Some(());
            }
        }
    }
}

/// A chunk of the chunked encoding; `None` at its end.
async fn chunk(inside: &mut BufReader<UnixStream>) -> Option<Vec<u8>> {
    let mut line = String::new();
    inside.read_line(&mut line).await.ok()?;
    let length = usize::from_str_radix(line.trim(), 16).ok()?;
    let mut chunk = vec![0; length + 2];
    inside.read_exact(&mut chunk).await.ok()?;
    chunk.truncate(length);
    (length > 0).then_some(chunk)
}

fn number(bytes: &[u8]) -> usize {
    u32::from_be_bytes(bytes[..4].try_into().unwrap()) as usize
}

/// The first message, if it is there whole.
fn take(bytes: &mut Vec<u8>) -> Option<Vec<u8>> {
    let length = (bytes.len() >= 4).then(|| number(bytes))?;
    (bytes.len() >= length).then(|| bytes.drain(..length).collect())
}

/// An event, and whether it is the shard's last: then with the children.
fn ended(message: Vec<u8>, arguments: &Value) -> (Vec<u8>, bool) {
    let headers = number(&message[4..]);
    let payload = &message[12 + headers..message.len() - 4];
    let mut event: Value = serde_json::from_slice(payload).unwrap();
    if event["Records"] != json!([]) || event["MillisBehindLatest"] != 0 {
        return (message, false);
    }
    let stream = arguments["ConsumerARN"].as_str().unwrap().split('/').nth(1).unwrap();
    let behind = json!({ "StreamName": stream, "ShardId": arguments["ShardId"], "ShardIteratorType": "AFTER_SEQUENCE_NUMBER", "StartingSequenceNumber": event["ContinuationSequenceNumber"] });
    let iterator = Kinesis::asked("GetShardIterator", &behind)["ShardIterator"].clone();
    let rest = Kinesis::asked("GetRecords", &json!({ "ShardIterator": iterator }));
    if rest["Records"] != json!([]) || !rest["NextShardIterator"].is_null() {
        return (message, false);
    }
    let children: Vec<Value> = Kinesis::asked("ListShards", &json!({ "StreamName": stream }))["Shards"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|shard| {
            let parents = [&shard["ParentShardId"], &shard["AdjacentParentShardId"]];
            parents.contains(&&arguments["ShardId"])
        })
        .map(|shard| json!({ "ShardId": shard["ShardId"], "HashKeyRange": shard["HashKeyRange"], "ParentShards": [arguments["ShardId"]] }))
        .collect();
    event["ChildShards"] = children.into();
    event["ContinuationSequenceNumber"] = Value::Null;
    (encoded(&message[12..12 + headers], event.to_string().as_bytes()), true)
}

/// A message with these headers and this payload.
fn encoded(headers: &[u8], payload: &[u8]) -> Vec<u8> {
    let number = |number: usize| (number as u32).to_be_bytes();
    let mut message = [number(16 + headers.len() + payload.len()), number(headers.len())].concat();
    message.extend(crc32fast::hash(&message).to_be_bytes());
    message.extend([headers, payload].concat());
    message.extend(crc32fast::hash(&message).to_be_bytes());
    message
}
