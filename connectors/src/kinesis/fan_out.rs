//! Enhanced fan-out: a consumer of its own, to which Kinesis pushes what a shard gets.
//!
//! ```text
//!  SubscribeToShard ──POST──► Kinesis ──events, for five minutes──► thread ──► queue ──► cursor
//! ```
//!
//! A subscription is one way for a [`super::cursor`] to get a shard's next records, GetRecords the other; what is done
//! with them is the same. It begins where the cursor is, and when it ends, for whatever reason, the next one begins behind
//! the last event that the cursor took: so nothing is left out, and nothing comes twice. A thread a subscription reads,
//! because the lane's own thread has to do with several; it stops reading while [`QUEUED`] events wait.
//!
//! Kinesis gives a consumer one subscription a shard. A shard that several lanes read (it was merged, or there are more
//! lanes than shards) is therefore polled by each of them.

use std::sync::Arc;
use std::thread::Thread;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, bounded};
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::sync::oneshot;
use tokio::time::timeout;

use super::client::{Client, Failure, now_ms, pause};
use super::frames::{Frames, Message};
use super::http2;
use super::shards::{Record, Sequence};

/// Events that wait for the cursor; each has up to 2 MB of records.
const QUEUED: usize = 2;
/// Kinesis sends an event every few seconds, also where there is no record. After so long without, a connection is dead.
const SILENT: Duration = Duration::from_secs(35);
/// How long a consumer may take to become active, and how soon it is asked again.
const ACTIVE_WITHIN: Duration = Duration::from_secs(120);
const ACTIVE_WAIT: Duration = Duration::from_millis(500);
/// How much of a refusal is read.
const REFUSAL_BYTES: usize = 64 << 10;

/// A registered consumer.
pub(super) struct FanOut {
    client: Arc<Client>,
    /// Its name as Kinesis gives it (ARN).
    arn: String,
}

#[derive(Deserialize)]
struct Registered {
    #[serde(rename = "ConsumerDescription", alias = "Consumer")]
    consumer: Consumer,
}

#[derive(Deserialize)]
struct Consumer {
    #[serde(rename = "ConsumerARN")]
    arn: String,
    #[serde(rename = "ConsumerStatus")]
    status: String,
}

/// What an event tells.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct Event {
    pub records: Vec<Record>,
    /// Behind what the next subscription begins; `None` at the shard's end.
    pub continuation_sequence_number: Option<Sequence>,
    #[serde(default)]
    pub millis_behind_latest: u64,
    #[serde(default)]
    child_shards: Option<Vec<Value>>,
}

impl Event {
    /// Whether it is the shard's last: its children are there.
    pub fn ends(&self) -> bool {
        self.child_shards.as_ref().is_some_and(|children| !children.is_empty())
    }
}

/// What became of a subscription.
#[derive(Debug)]
pub(super) enum Told {
    Event(Event),
    /// Its time is over.
    Over,
    Failed(Failure),
}

/// A shard's events, while they come.
pub(super) struct Subscription {
    told: Receiver<Told>,
    /// When it was asked for, in milliseconds: whatever it tells Kinesis has looked at after that.
    pub asked_ms: u64,
    /// Whether it has told anything.
    pub has_told: bool,
    /// Dropped with it; then the thread ends.
    _wanted: oneshot::Sender<()>,
}

impl FanOut {
    /// The consumer `name` of the stream `stream`, an ARN: registered, if it is not, and waited for until it is active.
    ///
    /// # Errors
    /// When it cannot be, or Kinesis is away.
    pub fn register(client: Arc<Client>, stream: &str, name: &str) -> Result<FanOut, Failure> {
        let arguments = json!({ "StreamARN": stream, "ConsumerName": name });
        let until = Instant::now() + ACTIVE_WITHIN;
        loop {
            let consumer = match client.call::<Registered>("DescribeStreamConsumer", &arguments) {
                Ok(described) => described.consumer,
                Err(Failure::NotThere(_)) => {
                    tracing::info!(
                        "registering the consumer {name} of {stream}; it stays, and is paid for, until it is deregistered"
                    );
                    client.call::<Registered>("RegisterStreamConsumer", &arguments)?.consumer
                }
                Err(failure) => return Err(failure),
            };
            match consumer.status.as_str() {
                "ACTIVE" => return Ok(FanOut { client, arn: consumer.arn }),
                status if Instant::now() > until => {
                    return Err(Failure::Outage(format!(
                        "the consumer {name} does not become active: it is {status}"
                    )));
                }
                _ => pause(ACTIVE_WAIT),
            }
        }
    }

    /// Begins to read `shard` from `position` on, for the thread that asks.
    pub fn subscribe(&self, shard: &str, position: Value) -> Result<Subscription, Failure> {
        let arguments = json!({ "ConsumerARN": self.arn, "ShardId": shard, "StartingPosition": position });
        let (tell, told) = bounded(QUEUED);
        let (wanted, unwanted) = oneshot::channel();
        let asked_ms = now_ms();
        let (client, reader) = (Arc::clone(&self.client), std::thread::current());
        let thread = std::thread::Builder::new().name("levada-fan-out".to_owned());
        let begun = thread.spawn(move || follow(&client, &arguments, &Teller { tell, reader }, unwanted));
        begun.map_err(|error| Failure::Outage(format!("start a thread: {error}")))?;
        Ok(Subscription { told, asked_ms, has_told: false, _wanted: wanted })
    }
}

impl Subscription {
    /// What it told next, if anything.
    pub fn next(&mut self) -> Option<Told> {
        let told = self.told.try_recv().ok()?;
        self.has_told |= matches!(told, Told::Event(_));
        Some(told)
    }

    /// Whether something waits.
    pub fn has_more(&self) -> bool {
        !self.told.is_empty()
    }
}

/// Tells a lane, and wakes it.
struct Teller {
    tell: Sender<Told>,
    reader: Thread,
}

impl Teller {
    /// Waits for room; whether anybody listens.
    fn tell(&self, told: Told) -> bool {
        let heard = self.tell.send(told).is_ok();
        self.reader.unpark();
        heard
    }
}

/// The thread.
fn follow(client: &Client, arguments: &Value, teller: &Teller, unwanted: oneshot::Receiver<()>) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let last = match runtime {
        Err(error) => Some(Told::Failed(Failure::Outage(format!("start a runtime: {error}")))),
        Ok(runtime) => runtime.block_on(async {
            tokio::select! {
                _ = unwanted => None,
                over = events(client, arguments, teller) => Some(over.map_or_else(Told::Failed, |()| Told::Over)),
            }
        }),
    };
    if let Some(last) = last {
        teller.tell(last);
    }
}

/// Tells the events of one subscription, until it ends.
async fn events(client: &Client, arguments: &Value, teller: &Teller) -> Result<(), Failure> {
    const ACTION: &str = "SubscribeToShard";
    let away = |why: String| Failure::Outage(format!("{ACTION}: {why}"));
    let request = client.signed(ACTION, arguments)?;
    let mut answer = http2::post(client.url(), &request.headers, request.body).await.map_err(away)?;
    if answer.status != 200 {
        let mut refusal = Vec::new();
        while let Ok(Ok(Some(chunk))) = timeout(SILENT, answer.chunk()).await
            && refusal.len() < REFUSAL_BYTES
        {
            refusal.extend_from_slice(&chunk);
        }
        return Err(client.refused(ACTION, answer.status, &refusal));
    }
    let mut frames = Frames::default();
    loop {
        let silent = |_| away(format!("nothing has come for {SILENT:?}"));
        let Some(chunk) = timeout(SILENT, answer.chunk()).await.map_err(silent)?.map_err(away)? else {
            break;
        };
        frames.push(&chunk);
        while let Some(message) = frames.next().map_err(away)? {
            let Some(event) = understand(client, ACTION, &message)? else { continue };
            if !teller.tell(Told::Event(event)) {
                return Ok(());
            }
        }
    }
    if frames.is_empty() { Ok(()) } else { Err(away("the answer ends in the midst of a message".into())) }
}

/// The event that a message is; `None` of those that are of no interest.
fn understand(client: &Client, action: &str, message: &Message) -> Result<Option<Event>, Failure> {
    let header = |name: &str| message.headers.get(name).map_or("", String::as_str);
    match header(":message-type") {
        "event" if header(":event-type") == "SubscribeToShardEvent" => {
            let event = serde_json::from_slice(&message.payload);
            let event = event
                .map_err(|error| Failure::Outage(format!("{action}: an event is not understood: {error}")));
            event.map(Some)
        }
        "event" => Ok(None),
        "exception" => Err(client.excepted(action, header(":exception-type"), &message.payload)),
        _ => {
            Err(Failure::Outage(format!("{action}: {}: {}", header(":error-code"), header(":error-message"))))
        }
    }
}
