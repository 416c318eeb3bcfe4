//! Rows to an HTTP address: webhooks.
//!
//! ```text
//!  epoch ─► requests ─► queue ─► a thread: POST, one after the other ─┬─ 2xx ──────────► JOB.SINK.delivered
//!           of up to     bounded   again after 408, 425, 429, 5xx     └─ refused ──────► JOB.SINK.undelivered, too
//!           `batch` rows           and broken connections
//! ```
//!
//! The contract:
//! - *At least once.* What was acknowledged is written down in the topic `JOB.SINK.delivered`, by which a run goes on;
//!   so after a crash only the request that was on its way is sent again.
//! - *Recognisable.* Every request carries an `Idempotency-Key` that depends on the job, the sink, the epoch and the
//!   row's place in it, and on when the topic `delivered` was made; a request that is sent again has the same key, and
//!   the same body.
//! - *Ordered.* One request after the other, all in the order of the rows: the next is not sent before the one before
//!   it is acknowledged or set aside. Throughput is what the other side answers in; `batch` raises it.
//! - *Nothing lost.* A request that is refused for good (any other 3xx, 4xx) goes to the topic `JOB.SINK.undelivered`
//!   with the reason and its body. 401 and 403 end the job: no later request would fare better.
//!
//! A signature, where there is a secret, is that of Stripe's webhooks: `levada-signature: t=SECONDS,v1=HEX`, the
//! HMAC-SHA256 of `SECONDS.BODY`. The time is that of the attempt, so that a receiver can refuse old ones.

mod body;
mod config;
mod delivery;
mod sink;

pub use config::{MessageForm, WebhookSinkConfig};
pub use sink::WebhookSink;
