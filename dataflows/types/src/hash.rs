//! The stable hash that places a key: the same on every machine, release and worker count.

use arrow::array::{Array, ArrayRef, AsArray};
use arrow::datatypes::{
    DataType, Date32Type, Float32Type, Float64Type, Int8Type, Int16Type, Int32Type, Int64Type, TimeUnit,
    TimestampMillisecondType, UInt8Type, UInt16Type, UInt32Type, UInt64Type,
};
use xxhash_rust::xxh3::xxh3_64;

use crate::KeyGroup;

/// How many groups the keys of a step are divided into. More would only help beyond 256 workers.
pub const KEY_GROUPS: u16 = 256;

const NULL_HASH: u64 = 0x9e37_79b9_7f4a_7c15;

/// Hashes rows by some of their columns (xxh3, 64 bits), column by column, reusing its buffer.
#[derive(Debug, Default)]
pub struct KeyHasher {
    hashes: Vec<u64>,
}

impl KeyHasher {
    /// One hash a row over `columns`, which must be equally long. Strings hash by their UTF-8 bytes,
    /// numbers and timestamps by the little-endian bytes of their 64-bit value, so that a key hashes
    /// alike whatever the width of its column; a null has a hash of its own.
    ///
    /// With no column every row hashes to 0: one key, one worker.
    pub fn hash(&mut self, columns: &[&ArrayRef], rows: usize) -> &[u64] {
        self.hashes.clear();
        self.hashes.resize(rows, 0);
        for (index, column) in columns.iter().enumerate() {
            self.add(column, index == 0);
        }
        &self.hashes
    }

    /// The hash of one text column's value.
    pub fn text(text: Option<&str>) -> u64 {
        text.map_or(NULL_HASH, |text| xxh3_64(text.as_bytes()))
    }

    /// The key group of a hash.
    #[inline]
    pub fn group(hash: u64) -> KeyGroup {
        KeyGroup((hash % u64::from(KEY_GROUPS)) as u16)
    }

    fn add(&mut self, column: &ArrayRef, first: bool) {
        macro_rules! numbers {
            ($type:ty, $as:ty) => {{
                let values = column.as_primitive::<$type>();
                self.each(column, first, |i| xxh3_64(&(values.value(i) as $as).to_le_bytes()))
            }};
        }
        match column.data_type() {
            DataType::Utf8 => {
                let values = column.as_string::<i32>();
                self.each(column, first, |i| xxh3_64(values.value(i).as_bytes()))
            }
            DataType::LargeUtf8 => {
                let values = column.as_string::<i64>();
                self.each(column, first, |i| xxh3_64(values.value(i).as_bytes()))
            }
            DataType::Utf8View => {
                let values = column.as_string_view();
                self.each(column, first, |i| xxh3_64(values.value(i).as_bytes()))
            }
            DataType::Boolean => {
                let values = column.as_boolean();
                self.each(column, first, |i| xxh3_64(&i64::from(values.value(i)).to_le_bytes()))
            }
            DataType::Int8 => numbers!(Int8Type, i64),
            DataType::Int16 => numbers!(Int16Type, i64),
            DataType::Int32 => numbers!(Int32Type, i64),
            DataType::Int64 => numbers!(Int64Type, i64),
            DataType::UInt8 => numbers!(UInt8Type, i64),
            DataType::UInt16 => numbers!(UInt16Type, i64),
            DataType::UInt32 => numbers!(UInt32Type, i64),
            DataType::UInt64 => numbers!(UInt64Type, i64),
            DataType::Date32 => numbers!(Date32Type, i64),
            DataType::Timestamp(TimeUnit::Millisecond, _) => numbers!(TimestampMillisecondType, i64),
            DataType::Float32 => numbers!(Float32Type, f64),
            DataType::Float64 => numbers!(Float64Type, f64),
            // Any other type keys by its printed form: slow, but right and stable.
            _ => {
                let options = arrow::util::display::FormatOptions::default();
                match arrow::util::display::ArrayFormatter::try_new(column, &options) {
                    Ok(format) => {
                        self.each(column, first, |i| xxh3_64(format.value(i).to_string().as_bytes()))
                    }
                    Err(_) => self.each(column, first, |_| NULL_HASH),
                }
            }
        }
    }

    #[inline]
    fn each(&mut self, column: &ArrayRef, first: bool, hash: impl Fn(usize) -> u64) {
        let nulls = column.nulls();
        for (i, slot) in self.hashes.iter_mut().enumerate() {
            let value = if nulls.is_some_and(|n| n.is_null(i)) { NULL_HASH } else { hash(i) };
            *slot =
                if first { value } else { slot.rotate_left(23).wrapping_mul(0x9e37_79b1_85eb_ca87) ^ value };
        }
    }
}
