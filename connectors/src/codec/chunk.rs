//! A chunk of records, one by one: each becomes a row or a dead letter, whatever its neighbours are.

use levada_types::{DeadLetter, Decoded, Offset, RawRecords};

use super::columns::Columns;

/// Decodes single records into columns.
pub(super) trait RecordDecoder {
    /// Where the rows go.
    fn columns(&mut self) -> &mut Columns;

    /// Makes a row of record `i`; or says why it cannot be one, and what of it is in the columns is taken back.
    fn record(&mut self, records: &RawRecords, i: usize) -> Result<(), String>;
}

/// Decodes all of `records`.
pub(super) fn decode(decoder: &mut impl RecordDecoder, records: &RawRecords) -> Decoded {
    let letter = |i: usize, reason| DeadLetter {
        offset: Offset(records.offsets.get(i).copied().unwrap_or_default()),
        reason,
        bytes: records.value(i).to_vec(),
    };
    let mut dead = Vec::new();
    let mut good = Vec::new();
    decoder.columns().reserve(records.len());
    for i in 0..records.len() {
        match decoder.record(records, i) {
            Ok(()) => {
                if !dead.is_empty() {
                    good.push(i as u32);
                }
            }
            Err(reason) => {
                decoder.columns().undo();
                if dead.is_empty() {
                    good.extend(0..i as u32);
                }
                dead.push(letter(i, reason));
            }
        }
    }
    let columns = decoder.columns();
    let rows = columns.finish().unwrap_or_else(|error| {
        // Sound columns always make a batch; should that ever fail, the records are dead, not lost.
        good.clear();
        dead = (0..records.len()).map(|i| letter(i, format!("no row could be made: {error}"))).collect();
        columns.empty()
    });
    Decoded { rows, indices: (!dead.is_empty()).then_some(good), dead }
}
