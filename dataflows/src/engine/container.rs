//! How batches travel: our own timely container, and who gets which rows.
//!
//! Within a process a batch moves by its pointers. On an edge that leaves the process it is an Arrow
//! IPC stream behind its origin and its promises, encoded once.

use std::cell::OnceCell;
use std::io::Write;

use arrow::array::{ArrayRef, Int64Array, RecordBatch, UInt32Array};
use levada_types::{Batch, KeyHasher, Offset, Origin, PartitionId};
use timely::Accountable;
use timely::communication::Push;
use timely::dataflow::channels::pushers::exchange::Distributor;
use timely::dataflow::channels::{ContainerBytes, Message};

use crate::held::{decode_rows, encode_rows};

/// One batch, or none (timely's containers have a default).
#[derive(Clone, Default)]
pub(super) struct BatchContainer {
    batch: Option<Batch>,
    encoded: OnceCell<Vec<u8>>,
}

impl BatchContainer {
    pub(super) fn new(batch: Batch) -> Self {
        BatchContainer { batch: Some(batch), encoded: OnceCell::new() }
    }

    pub(super) fn take(&mut self) -> Option<Batch> {
        self.encoded = OnceCell::new();
        self.batch.take()
    }

    fn encoded(&self) -> &[u8] {
        self.encoded.get_or_init(|| {
            let mut bytes = Vec::new();
            if let Some(batch) = &self.batch {
                let origin = batch.origin;
                let promises = batch.promises.as_ref().map_or(&[][..], |promises| &promises.values()[..]);
                let (source, partition) = (u64::from(origin.source), u64::from(origin.partition.0));
                for word in [source, partition, origin.offset.0, promises.len() as u64] {
                    bytes.extend_from_slice(&word.to_le_bytes());
                }
                promises.iter().for_each(|promise| bytes.extend_from_slice(&promise.to_le_bytes()));
                // Arrow refuses only types that no stream of ours has.
                let rows =
                    encode_rows(&batch.rows).unwrap_or_else(|e| panic!("a batch does not encode: {e}"));
                bytes.extend_from_slice(&rows);
            }
            bytes.resize(bytes.len().next_multiple_of(8), 0);
            bytes
        })
    }

    fn decode(bytes: &[u8]) -> Option<Batch> {
        let word = |i: usize| bytes.get(8 * i..8 * i + 8)?.try_into().ok().map(u64::from_le_bytes);
        let origin = Origin {
            source: u16::try_from(word(0)?).ok()?,
            partition: PartitionId(u32::try_from(word(1)?).ok()?),
            offset: Offset(word(2)?),
        };
        let count = usize::try_from(word(3)?).ok()?;
        let (promises, rows) = bytes.get(32..)?.split_at_checked(count.checked_mul(8)?)?;
        let rows: RecordBatch = decode_rows(rows).ok()?.pop()?;
        let (promises, _) = promises.as_chunks::<8>();
        let promises = promises.iter().map(|promise| i64::from_le_bytes(*promise));
        let promises = (count > 0 && count == rows.num_rows()).then(|| promises.collect::<Int64Array>());
        Some(Batch { rows, origin, promises })
    }
}

impl Accountable for BatchContainer {
    fn record_count(&self) -> i64 {
        self.batch.as_ref().map_or(0, |batch| batch.rows.num_rows() as i64)
    }
}

impl ContainerBytes for BatchContainer {
    fn from_bytes(bytes: timely::bytes::arc::Bytes) -> Self {
        if bytes.is_empty() {
            return BatchContainer::default();
        }
        // Timely has no way to refuse here. A peer that sends what is no batch is another release or
        // a broken network; going on would lose rows, so the process ends.
        let batch = BatchContainer::decode(&bytes);
        BatchContainer::new(
            batch.unwrap_or_else(|| panic!("a peer sent {} bytes that are no batch", bytes.len())),
        )
    }

    fn length_in_bytes(&self) -> usize {
        self.encoded().len()
    }

    fn into_bytes<W: Write>(&self, writer: &mut W) {
        writer.write_all(self.encoded()).unwrap_or_else(|e| panic!("timely's buffer refused a batch: {e}"));
    }
}

/// Who gets a batch's rows.
pub(super) enum Router {
    /// This worker gets all.
    Worker(usize),
    /// The owner of each row's key group gets it.
    Key { columns: Vec<usize>, hasher: KeyHasher, shares: Vec<Vec<u32>> },
    /// Every worker gets all.
    All,
}

impl Router {
    pub(super) fn key(columns: Vec<usize>, peers: usize) -> Router {
        if columns.is_empty() || peers == 1 {
            return Router::Worker(0);
        }
        Router::Key { columns, hasher: KeyHasher::default(), shares: vec![Vec::new(); peers] }
    }
}

impl Distributor<BatchContainer> for Router {
    fn partition<T: Clone, P: Push<Message<T, BatchContainer>>>(
        &mut self,
        container: &mut BatchContainer,
        time: &T,
        pushers: &mut [P],
    ) {
        match self {
            Router::Worker(index) => Message::push_at(container, time.clone(), &mut pushers[*index]),
            Router::All => {
                for pusher in pushers {
                    Message::push_at(&mut container.clone(), time.clone(), pusher);
                }
            }
            Router::Key { columns, hasher, shares } => {
                let Some(batch) = container.take() else { return };
                let keys: Vec<&ArrayRef> = columns.iter().map(|&c| batch.rows.column(c)).collect();
                let rows = batch.rows.num_rows();
                // An even share and an eighth of it, so that hardly any grows.
                let even = rows / shares.len();
                for share in shares.iter_mut() {
                    share.clear();
                    share.reserve(even + even / 8);
                }
                for (row, &hash) in hasher.hash(&keys, rows).iter().enumerate() {
                    shares[KeyHasher::group(hash).worker(pushers.len())].push(row as u32);
                }
                for (share, pusher) in shares.iter_mut().zip(pushers) {
                    if share.is_empty() {
                        continue;
                    }
                    let part = if share.len() == rows {
                        batch.clone()
                    } else {
                        let indices = UInt32Array::from(std::mem::take(share));
                        // The indices are the batch's own.
                        batch.take(&indices).unwrap_or_else(|e| panic!("take failed: {e}"))
                    };
                    Message::push_at(&mut BatchContainer::new(part), time.clone(), pusher);
                }
            }
        }
    }

    fn flush<T: Clone, P: Push<Message<T, BatchContainer>>>(&mut self, _: &T, _: &mut [P]) {}
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::TimestampMillisecondArray;
    use arrow::datatypes::Schema;

    use super::*;

    #[test]
    fn what_leaves_the_process_comes_back_the_same() {
        let schema = Arc::new(Schema::new(vec![Batch::time_field()]));
        let times: ArrayRef = Arc::new(TimestampMillisecondArray::from(vec![1, 2, 3]));
        let rows = RecordBatch::try_new(schema, vec![times]).unwrap();
        let origin = Origin { source: 3, partition: PartitionId(7), offset: Offset(1 << 40) };
        for promises in [None, Some(Int64Array::from(vec![i64::MIN, 4, -5]))] {
            let batch = Batch { promises: promises.clone(), ..Batch::read(rows.clone(), origin) };
            let container = BatchContainer::new(batch);
            let mut bytes = Vec::new();
            container.into_bytes(&mut bytes);
            assert_eq!(bytes.len(), container.length_in_bytes());
            assert_eq!(bytes.len() % 8, 0);
            let back = BatchContainer::decode(&bytes).unwrap();
            assert_eq!((&back.rows, back.origin, back.promises), (&rows, origin, promises));
            assert!(BatchContainer::decode(&bytes[..28]).is_none());
            assert!(BatchContainer::decode(&bytes[..40]).is_none());
        }
    }
}
