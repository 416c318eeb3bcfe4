//! The words and the ports that levada's crates share.
//!
//! `dataflows` (the engine), `connectors` (sources, sinks, codecs) and `models` (scoring) never
//! import one another. What two of them need stands here: plain data (batches, epochs, positions,
//! time, state) and the traits by which the engine meets a connector or a model.
//!
//! ```text
//!   connectors ──► SourceFactory, RecordReader, Decoder, SinkFactory, Sink ──┐
//!   models ──────► Scorer ───────────────────────────────────────────────────┼──► dataflows
//!   connectors ──► Journal, CheckpointStore ─────────────────────────────────┤
//!   all ─────────► Batch, Epoch, EventTime, PartitionId, KeyGroup, StateChanges ┘
//! ```

pub mod batch;
pub mod checkpoint;
pub mod decode;
pub mod error;
pub mod hash;
pub mod journal;
pub mod nearest;
pub mod output;
pub mod position;
pub mod scoring;
pub mod sink;
pub mod source;
pub mod state;
pub mod time;

pub use self::nearest::nearest;
pub use batch::{Batch, Origin, TIME_COLUMN};
pub use checkpoint::CheckpointStore;
pub use decode::{DeadLetter, Decoded, Decoder, DecoderFactory};
pub use error::{Blame, ConnectorError};
pub use hash::{KEY_GROUPS, KeyHasher};
pub use journal::{Journal, JournalWriter};
pub use output::{CommandLine, Deed, Held, Output};
pub use position::{Epoch, KeyGroup, Offset, PartitionId};
pub use scoring::{FieldKind, ScoreError, Scorer, ScorerFactory, TextTokenizer, TokenField};
pub use sink::{Existing, Sink, SinkFactory, WhenDurable};
pub use source::{
    RawRecords, Read, ReaderWaker, RecordHeaders, RecordReader, SourceFactory, SourceLag, StartAt,
    push_header,
};
pub use state::{Snapshot, StateChange, StateChanges};
pub use time::{DURATION_PATTERN, EventTime, parse_duration_ms};
