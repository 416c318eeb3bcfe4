//! The rows of the table that can still be seen, left where they arrived.
//!
//! A row is a place: a chunk (the added columns of a batch) and an index into it. Nothing is copied
//! when a row is taken up; a chunk goes when its last row was replaced. Chunks that are small or
//! mostly dead are rewritten into one before they get many, so that the memory held is at most about
//! twice that of the live rows plus one epoch's.

use arrow::array::{Array, ArrayRef, UInt32Array, new_null_array};
use arrow::compute::{interleave, take};
use arrow::datatypes::Schema;

use super::operator::Version;
use crate::keyed::Keyed;
use crate::operator::OperatorError;
use crate::rows::RowWriter;

/// Where a row is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Place {
    chunk: u32,
    row: u32,
}

impl Place {
    /// No row.
    pub(super) const NOWHERE: Place = Place { chunk: u32::MAX, row: u32::MAX };
}

/// Chunks of rows.
pub(super) struct Table {
    chunks: Vec<Option<Chunk>>,
    free: Vec<u32>,
    /// One null a column: what a row that matches nothing gets.
    nulls: Vec<ArrayRef>,
}

struct Chunk {
    columns: Vec<ArrayRef>,
    /// The number of each row's key; `u32::MAX` for a row that never counted.
    keys: Vec<u32>,
    live: usize,
}

/// A chunk of fewer rows is small.
const SMALL_ROWS: usize = 4096;
/// So many small chunks are rewritten.
const SMALL_CHUNKS: usize = 64;
/// So many dead rows are let be, whatever the live ones.
const DEAD_ROWS: usize = 8192;
/// The rows of a rewritten chunk: their strings stay far from the 2 GiB that an array can hold.
pub(super) const CHUNK_ROWS: usize = 65_536;

impl Table {
    pub(super) fn new(schema: &Schema) -> Table {
        let nulls = schema.fields().iter().map(|field| new_null_array(field.data_type(), 1)).collect();
        Table { chunks: Vec::new(), free: Vec::new(), nulls }
    }

    /// Adds rows, none of which counts yet; gives the chunk's number.
    pub(super) fn add(&mut self, columns: Vec<ArrayRef>, rows: usize) -> u32 {
        let chunk = Some(Chunk { columns, keys: vec![u32::MAX; rows], live: 0 });
        match self.free.pop() {
            Some(number) => {
                self.chunks[number as usize] = chunk;
                number
            }
            None => {
                self.chunks.push(chunk);
                self.chunks.len() as u32 - 1
            }
        }
    }

    /// Says that a row is the one of a key from now on.
    pub(super) fn hold(&mut self, chunk: u32, row: usize, key: u32) -> Place {
        if let Some(chunk) = &mut self.chunks[chunk as usize] {
            chunk.keys[row] = key;
            chunk.live += 1;
        }
        Place { chunk, row: row as u32 }
    }

    /// Says that a row has been replaced. It stays readable until [`Table::tidy`].
    pub(super) fn release(&mut self, place: Place) {
        if let Some(Some(chunk)) = self.chunks.get_mut(place.chunk as usize) {
            chunk.live -= 1;
        }
    }

    /// The rows at `places`, a null for each that is nowhere.
    pub(super) fn gather(&self, places: &[Place]) -> Result<Vec<ArrayRef>, OperatorError> {
        let mut used: Vec<&Chunk> = Vec::new();
        let mut order = vec![0; self.chunks.len()];
        for place in places {
            if let Some(Some(chunk)) = self.chunks.get(place.chunk as usize)
                && order[place.chunk as usize] == 0
            {
                used.push(chunk);
                order[place.chunk as usize] = used.len();
            }
        }
        // Nearly always a batch meets one chunk, and taking from one is faster than from many.
        if let [chunk] = used[..] {
            let rows: UInt32Array =
                places.iter().map(|place| (*place != Place::NOWHERE).then_some(place.row)).collect();
            return Ok(chunk.columns.iter().map(|column| take(column, &rows, None)).collect::<Result<_, _>>()?);
        }
        let rows: Vec<(usize, usize)> = places
            .iter()
            .map(|place| match order.get(place.chunk as usize) {
                Some(&chunk) => (chunk, place.row as usize),
                None => (0, 0),
            })
            .collect();
        let column = |index: usize| {
            let sources = std::iter::once(&self.nulls).chain(used.iter().map(|chunk| &chunk.columns));
            let sources: Vec<&dyn Array> = sources.map(|columns| columns[index].as_ref()).collect();
            Ok(interleave(&sources, &rows)?)
        };
        (0..self.nulls.len()).map(column).collect()
    }

    /// Drops chunks that nobody needs, and rewrites those that hold too much for what they give.
    pub(super) fn tidy(&mut self, versions: &mut Keyed<Version>) -> Result<(), OperatorError> {
        let (mut live, mut dead, mut small) = (0, 0, 0);
        for (number, slot) in self.chunks.iter_mut().enumerate() {
            let Some(chunk) = slot else { continue };
            if chunk.live == 0 {
                *slot = None;
                self.free.push(number as u32);
                continue;
            }
            live += chunk.live;
            dead += chunk.keys.len() - chunk.live;
            small += usize::from(chunk.keys.len() < SMALL_ROWS);
        }
        if small < SMALL_CHUNKS && dead <= live + DEAD_ROWS {
            return Ok(());
        }
        let mut old = Vec::new();
        let mut moving = Vec::new();
        for (number, slot) in self.chunks.iter().enumerate() {
            let Some(chunk) = slot else { continue };
            if chunk.keys.len() < SMALL_ROWS || chunk.live * 2 < chunk.keys.len() {
                old.push(number as u32);
                for (row, &key) in chunk.keys.iter().enumerate() {
                    let place = Place { chunk: number as u32, row: row as u32 };
                    if key != u32::MAX && versions.get(key).place == place {
                        moving.push((key, place));
                    }
                }
            }
        }
        for rows in moving.chunks(CHUNK_ROWS) {
            let places: Vec<Place> = rows.iter().map(|&(_, place)| place).collect();
            let columns = self.gather(&places)?;
            let chunk = self.add(columns, rows.len());
            for (row, &(key, _)) in rows.iter().enumerate() {
                versions.rearrange(key).place = self.hold(chunk, row, key);
            }
        }
        for number in old {
            self.chunks[number as usize] = None;
            self.free.push(number);
        }
        Ok(())
    }

    /// Appends the row at `place` to `bytes`.
    pub(super) fn write(&self, place: Place, bytes: &mut Vec<u8>) -> Result<(), OperatorError> {
        let Some(Some(chunk)) = self.chunks.get(place.chunk as usize) else {
            return Err(OperatorError::State("write a row of a join's table: it is not there".into()));
        };
        RowWriter::new(chunk.columns.iter().collect())?.write(place.row as usize, bytes);
        Ok(())
    }

    /// Rows held, dead ones with them.
    #[cfg(test)]
    pub(super) fn held_rows(&self) -> usize {
        self.chunks.iter().flatten().map(|chunk| chunk.keys.len()).sum()
    }
}
