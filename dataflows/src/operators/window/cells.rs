//! The cells: what one aggregate remembers of the rows of one key in one window.
//!
//! Every cell is **order-blind** (any order of `add` and `merge` gives the same result) and can be
//! stored. A column holds one cell a slot, so that a batch updates it in one tight loop over
//! (row, slot) pairs, without a call or a look-up a row.

use std::hash::BuildHasher;

use arrow::array::StringArray;
use hashbrown::HashSet;
use serde::{Deserialize, Serialize, de::DeserializeOwned};

use super::argument::Values;
use super::sketch::Sketch;
use crate::exact::ExactSum;
use crate::operator::OperatorError;

/// The rows of a batch that go to a set of cells.
#[derive(Clone, Copy, Debug)]
pub(super) struct Work<'a> {
    /// The rows; none: all of the batch.
    pub(super) rows: Option<&'a [u32]>,
    /// The slot of each of the rows.
    pub(super) slots: &'a [u32],
    /// The event time of each row of the batch.
    pub(super) times: &'a [i64],
}

/// What one aggregate remembers of some rows.
pub(super) trait Cell: Default + Clone + Serialize + DeserializeOwned {
    /// The form of the values that it takes.
    type Source<'a>: Source;
    /// Whether it looks at the time of a row.
    const TIMED: bool = false;

    /// That form of a batch's values.
    fn source(values: &Values) -> Option<Self::Source<'_>>;
    /// Takes a value at a time.
    fn add(&mut self, value: <Self::Source<'_> as Source>::Item, time: i64);
    /// Takes what another cell has taken.
    fn merge(&mut self, other: &Self);
    /// The column of this kind of cell.
    fn of(column: &Column) -> &[Self];
}

/// Values by row.
pub(super) trait Source: Copy {
    /// A value.
    type Item;
    /// The value in a row.
    fn at(self, row: usize) -> Self::Item;
}

impl Source for () {
    type Item = ();
    #[inline(always)]
    fn at(self, _: usize) {}
}

impl<T: Copy> Source for &[T] {
    type Item = T;
    #[inline(always)]
    fn at(self, row: usize) -> T {
        self[row]
    }
}

impl<'a> Source for &'a StringArray {
    type Item = &'a str;
    #[inline(always)]
    fn at(self, row: usize) -> &'a str {
        self.value(row)
    }
}

macro_rules! cells {
    ($($name:ident: $source:ty = |$values:ident| $get:expr, $timed:literal,
       |$cell:ident, $value:ident, $time:ident| $add:expr, |$into:ident, $from:ident| $merge:expr;)*) => {
        $(impl Cell for $name {
            type Source<'a> = $source;
            const TIMED: bool = $timed;
            #[inline(always)]
            fn source($values: &Values) -> Option<Self::Source<'_>> { $get }
            #[inline(always)]
            fn add(&mut self, $value: <Self::Source<'_> as Source>::Item, $time: i64) {
                let $cell = self;
                $add
            }
            fn merge(&mut self, $from: &Self) {
                let $into = self;
                $merge
            }
            fn of(column: &Column) -> &[Self] {
                match column {
                    Column::$name(cells) => cells,
                    _ => unreachable!("the plan reads each column as the kind it made"),
                }
            }
        })*

        /// A kind of cell.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub(super) enum Kind { $($name),* }

        /// One cell a slot.
        #[derive(Clone, Debug)]
        pub(super) enum Column { $($name(Vec<$name>)),* }

        impl Column {
            /// A column without a slot.
            pub(super) fn new(kind: Kind) -> Column {
                match kind { $(Kind::$name => Column::$name(Vec::new())),* }
            }

            /// Adds empty slots until there are `slots`.
            pub(super) fn grow(&mut self, slots: usize) {
                match self { $(Column::$name(cells) => cells.resize_with(slots, Default::default)),* }
            }

            /// Removes all slots.
            pub(super) fn empty(&mut self) {
                match self { $(Column::$name(cells) => cells.clear()),* }
            }

            /// Takes rows in.
            pub(super) fn update(&mut self, values: &Values, work: Work<'_>) {
                match self { $(Column::$name(cells) => update(cells, values, work)),* }
            }

            /// Takes in another column of the same kind, whose slot `i` is this one's `slots[i]`.
            pub(super) fn merge(&mut self, other: &Column, slots: &[u32]) {
                match (self, other) {
                    $((Column::$name(cells), Column::$name(others)) => {
                        for (other, &slot) in others.iter().zip(slots) {
                            cells[slot as usize].merge(other);
                        }
                    })*
                    _ => unreachable!("columns are merged with their like"),
                }
            }

            /// Merges slot `from` into slot `into` and empties it.
            pub(super) fn move_slot(&mut self, from: u32, into: u32) {
                match self { $(Column::$name(cells) => {
                    let cell = std::mem::take(&mut cells[from as usize]);
                    cells[into as usize].merge(&cell);
                })* }
            }

            /// Empties a slot.
            pub(super) fn clear(&mut self, slot: u32) {
                match self { $(Column::$name(cells) => cells[slot as usize] = Default::default()),* }
            }

            /// A column of some of its slots.
            pub(super) fn pick(&self, slots: &[u32]) -> Column {
                match self { $(Column::$name(cells) => {
                    Column::$name(slots.iter().map(|&slot| cells[slot as usize].clone()).collect())
                }),* }
            }

            /// How many bytes a cell has in memory, at least.
            pub(super) fn cell_size(&self) -> usize {
                match self { $(Column::$name(_) => size_of::<$name>()),* }
            }

            /// Appends a slot's cell to `bytes`.
            pub(super) fn store(&self, slot: usize, bytes: Vec<u8>) -> Result<Vec<u8>, String> {
                let stored = match self {
                    $(Column::$name(cells) => postcard::to_extend(&cells[slot], bytes)),*
                };
                stored.map_err(|e| format!("store a window's aggregate: {e}"))
            }

            /// Sets a slot to the cell at the head of `bytes`, and gives what follows it.
            pub(super) fn load<'a>(&mut self, slot: u32, bytes: &'a [u8]) -> Result<&'a [u8], OperatorError> {
                match self { $(Column::$name(cells) => {
                    let (cell, rest) = postcard::take_from_bytes(bytes)
                        .map_err(|e| OperatorError::State(format!("restore a window's aggregate: {e}")))?;
                    cells[slot as usize] = cell;
                    Ok(rest)
                }),* }
            }
        }
    };
}

#[inline(always)]
fn update<C: Cell>(cells: &mut [C], values: &Values, work: Work<'_>) {
    let Some(source) = C::source(values) else { return };
    let Work { rows, slots, times } = work;
    let time = |row: usize| if C::TIMED { times[row] } else { 0 };
    let mut add = |row: usize, slot: u32| cells[slot as usize].add(source.at(row), time(row));
    match (rows, &values.mask) {
        (None, None) => slots.iter().enumerate().for_each(|(row, &slot)| add(row, slot)),
        (Some(rows), None) => rows.iter().zip(slots).for_each(|(&row, &slot)| add(row as usize, slot)),
        (rows, Some(mask)) => {
            let row = |place: usize| rows.map_or(place, |rows| rows[place] as usize);
            let pairs = slots.iter().enumerate().map(|(place, &slot)| (row(place), slot));
            pairs.filter(|&(row, _)| mask.value(row)).for_each(|(row, slot)| add(row, slot));
        }
    }
}

cells! {
    Count: () = |_values| Some(()), false,
        |cell, _value, _time| cell.0 += 1,
        |into, from| into.0 += from.0;
    IntSum: &'a [i64] = |values| Some(&values.ordinals), false,
        |cell, value, _time| cell.0 = cell.0.saturating_add(i128::from(value)),
        |into, from| into.0 = into.0.saturating_add(from.0);
    FloatSum: &'a [f64] = |values| Some(&values.floats), false,
        |cell, value, _time| cell.0.add(value),
        |into, from| into.0.merge(&from.0);
    SquareSum: &'a [f64] = |values| Some(&values.floats), false,
        |cell, value, _time| cell.add_square(value),
        |into, from| { into.high.merge(&from.high); into.low.merge(&from.low) };
    Least: &'a [i64] = |values| Some(&values.ordinals), false,
        |cell, value, _time| cell.0 = cell.0.min(value),
        |into, from| into.0 = into.0.min(from.0);
    Greatest: &'a [i64] = |values| Some(&values.ordinals), false,
        |cell, value, _time| cell.0 = cell.0.max(value),
        |into, from| into.0 = into.0.max(from.0);
    LeastText: &'a StringArray = |values| values.text.as_ref(), false,
        |cell, value, _time| if cell.0.as_deref().is_none_or(|old| value < old) { cell.0 = Some(value.into()) },
        |into, from| if let Some(text) = &from.0 { into.add(text, 0) };
    GreatestText: &'a StringArray = |values| values.text.as_ref(), false,
        |cell, value, _time| if cell.0.as_deref().is_none_or(|old| value > old) { cell.0 = Some(value.into()) },
        |into, from| if let Some(text) = &from.0 { into.add(text, 0) };
    First: &'a [i64] = |values| Some(&values.ordinals), true,
        |cell, value, time| (cell.0, cell.1) = (cell.0, cell.1).min((time, value)),
        |into, from| into.add(from.1, from.0);
    Last: &'a [i64] = |values| Some(&values.ordinals), true,
        |cell, value, time| (cell.0, cell.1) = (cell.0, cell.1).max((time, value)),
        |into, from| into.add(from.1, from.0);
    FirstText: &'a StringArray = |values| values.text.as_ref(), true,
        |cell, value, time| if cell.0.as_ref().is_none_or(|(t, old)| (time, value) < (*t, old)) {
            cell.0 = Some((time, value.into()));
        },
        |into, from| if let Some((time, text)) = &from.0 { into.add(text, *time) };
    LastText: &'a StringArray = |values| values.text.as_ref(), true,
        |cell, value, time| if cell.0.as_ref().is_none_or(|(t, old)| (time, value) > (*t, old)) {
            cell.0 = Some((time, value.into()));
        },
        |into, from| if let Some((time, text)) = &from.0 { into.add(text, *time) };
    Percentiles: &'a [f64] = |values| Some(&values.floats), false,
        |cell, value, _time| cell.0.add(value),
        |into, from| into.0.merge(&from.0);
    Distinct: &'a [i64] = |values| Some(&values.ordinals), false,
        |cell, value, _time| { cell.0.insert(value); },
        |into, from| into.0.extend(from.0.iter().copied());
    DistinctText: &'a StringArray = |values| values.text.as_ref(), false,
        |cell, value, _time| if !cell.0.contains(value) { cell.0.insert(value.into()); },
        |into, from| from.0.iter().for_each(|text| into.add(text, 0));
}

/// How many rows.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(super) struct Count(pub(super) i64);

/// The exact sum of whole numbers. (2^64 rows of the greatest would reach the end of it.)
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(super) struct IntSum(pub(super) i128);

/// The exact sum of floats.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(super) struct FloatSum(pub(super) ExactSum<72>);

/// The exact sum of squares, each the sum of two floats: the rounded square and what the rounding
/// left out.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(super) struct SquareSum {
    pub(super) high: ExactSum<72>,
    pub(super) low: ExactSum<125>,
}

impl SquareSum {
    fn add_square(&mut self, x: f64) {
        let high = x * x;
        self.high.add(high);
        if high.is_finite() {
            self.low.add(x.mul_add(x, -high));
        }
    }
}

/// The least of values as numbers.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Least(pub(super) i64);

impl Default for Least {
    fn default() -> Self {
        Least(i64::MAX)
    }
}

/// The greatest of values as numbers.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Greatest(pub(super) i64);

impl Default for Greatest {
    fn default() -> Self {
        Greatest(i64::MIN)
    }
}

/// The least text, by its UTF-8 bytes.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(super) struct LeastText(pub(super) Option<Box<str>>);

/// The greatest text, by its UTF-8 bytes.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(super) struct GreatestText(pub(super) Option<Box<str>>);

/// The least (time, value).
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct First(pub(super) i64, pub(super) i64);

impl Default for First {
    fn default() -> Self {
        First(i64::MAX, i64::MAX)
    }
}

/// The greatest (time, value).
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Last(pub(super) i64, pub(super) i64);

impl Default for Last {
    fn default() -> Self {
        Last(i64::MIN, i64::MIN)
    }
}

/// The least (time, text).
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(super) struct FirstText(pub(super) Option<(i64, Box<str>)>);

/// The greatest (time, text).
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(super) struct LastText(pub(super) Option<(i64, Box<str>)>);

/// How the values are spread.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(super) struct Percentiles(pub(super) Sketch);

/// The values that occurred, as numbers: exact, so as large as there are different ones.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(from = "Vec<i64>", into = "Vec<i64>")]
pub(super) struct Distinct(pub(super) HashSet<i64, Seeded>);

/// The texts that occurred: exact, so as large as there are different ones.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(from = "Vec<Box<str>>", into = "Vec<Box<str>>")]
pub(super) struct DistinctText(pub(super) HashSet<Box<str>, Seeded>);

macro_rules! stored_sorted {
    ($set:ident, $item:ty) => {
        impl From<Vec<$item>> for $set {
            fn from(items: Vec<$item>) -> Self {
                $set(items.into_iter().collect())
            }
        }
        impl From<$set> for Vec<$item> {
            fn from(set: $set) -> Self {
                let mut items: Vec<$item> = set.0.into_iter().collect();
                items.sort_unstable();
                items
            }
        }
    };
}
stored_sorted!(Distinct, i64);
stored_sorted!(DistinctText, Box<str>);

/// Hashes with fixed seeds, so that no run differs from another.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Seeded;

impl BuildHasher for Seeded {
    type Hasher = ahash::AHasher;
    fn build_hasher(&self) -> ahash::AHasher {
        ahash::RandomState::with_seeds(1, 2, 3, 4).build_hasher()
    }
}
