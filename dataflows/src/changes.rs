//! Changelogs: streams that take back what they told.
//!
//! A row of such a stream has a column `change`, a text:
//!
//! | `change` | the row |
//! | --- | --- |
//! | `insert` | is new |
//! | `retract` | counts no more, and an `update` of the same time stands in its place |
//! | `update` | stands in the place of the one retracted |
//! | `delete` | counts no more, and none stands in its place |
//!
//! So who adds up adds `insert` and `update` and takes `retract` and `delete` away; and who wants the newest row of each
//! key (an *upsert*) leaves out what is retracted. Flink calls them +I, -U, +U and -D.

use arrow::datatypes::{DataType, Field, Schema};

/// The column that tells which of them a row is.
pub const CHANGE: &str = "change";
/// A new row.
pub const INSERT: &str = "insert";
/// A row that counts no more, and another stands in its place.
pub const RETRACT: &str = "retract";
/// The row in the place of one retracted.
pub const UPDATE: &str = "update";
/// A row that counts no more.
pub const DELETE: &str = "delete";

const MARK: &str = "levada.changelog";

/// The column of a step that makes a changelog. It is marked, and keeps the mark through `select` and `union`.
pub(crate) fn field() -> Field {
    let mut field = Field::new(CHANGE, DataType::Utf8, false);
    mark(&mut field);
    field
}

/// Marks a column as that of a changelog.
pub(crate) fn mark(field: &mut Field) {
    field.set_metadata([(MARK.to_owned(), String::new())].into());
}

/// Whether a stream is known to be a changelog: some step has made its column `change`.
pub fn is_changelog(schema: &Schema) -> bool {
    schema.field_with_name(CHANGE).is_ok_and(|field| field.metadata().contains_key(MARK))
}

/// Whether a row of a kind counts from now on, or no more; none for what is no kind.
pub(crate) fn counts(change: &str) -> Option<bool> {
    match change {
        INSERT | UPDATE => Some(true),
        RETRACT | DELETE => Some(false),
        _ => None,
    }
}
