//! A table of SQLite, in a file.
//!
//! There is one writer at a time, who gives a row its number while it holds the right to write, so the numbers are in the
//! order of the commits, and all that is seen is settled. The file is opened anew for each look: it may be replaced.

use std::path::{Path, PathBuf};
use std::time::Duration;

use levada_types::ConnectorError;
use rusqlite::config::DbConfig;
use rusqlite::types::ValueRef;
use rusqlite::{Connection, Error, ErrorCode, OpenFlags};

use super::settle::Seen;
use super::table::{Page, Place, Table, Wanted};
use crate::codec::Kind;
use crate::codec::{json, timestamp};

/// How long a file that somebody writes to is waited for, before it counts as away.
const BUSY: Duration = Duration::from_secs(1);

/// Bytes of records in a page, and one record more.
const PAGE_BYTES: usize = 4 << 20;

pub(super) struct SqliteTable {
    place: Place,
    path: PathBuf,
    page: String,
    /// Each column of a record: what stands before its value, and what it is.
    columns: Vec<(Vec<u8>, Option<Kind>)>,
}

impl SqliteTable {
    /// A table that is as the job file says.
    pub fn open(place: &Place, path: &Path) -> Result<SqliteTable, ConnectorError> {
        let table = SqliteTable {
            path: path.into(),
            page: page(place),
            columns: before_values(place),
            place: place.clone(),
        };
        let connection = table.connect()?;
        table.check(&connection)?;
        // That the condition can be understood shows here.
        connection.prepare(&table.page).map_err(|error| table.failed(&error))?;
        Ok(table)
    }

    fn connect(&self) -> Result<Connection, ConnectorError> {
        if !self.path.exists() {
            return Err(self.place.wrong(format!("there is no file {}", self.path.display())));
        }
        let open = || -> rusqlite::Result<Connection> {
            // To be able to write is what it takes to put right what a killed writer has left.
            let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
            let connection = Connection::open_with_flags(&self.path, flags)?;
            connection.busy_timeout(BUSY)?;
            connection.pragma_update(None, "query_only", true)?;
            // Otherwise a misspelt name in double quotes would be a text.
            connection.set_db_config(DbConfig::SQLITE_DBCONFIG_DQS_DML, false)?;
            Ok(connection)
        };
        open().map_err(|error| self.failed(&error))
    }

    fn check(&self, connection: &Connection) -> Result<(), ConnectorError> {
        let place = &self.place;
        let schema = place.schema.as_deref().unwrap_or("main");
        let names = |sql: &str, of: &str| -> Result<Vec<String>, ConnectorError> {
            let mut statement = connection.prepare(sql).map_err(|error| self.failed(&error))?;
            let names = statement.query_map([of], |row| row.get(0)).and_then(Iterator::collect);
            names.map_err(|error| self.failed(&error))
        };
        let tables = names("SELECT name FROM pragma_table_list WHERE schema = ? AND type = 'table'", schema)?;
        if !tables.contains(&place.name) {
            return Err(place.no_table(&tables));
        }
        place.check_columns(&names("SELECT name FROM pragma_table_xinfo(?)", &place.name)?)?;
        let column = &place.config.column;
        if !self.grows(connection).map_err(|error| self.failed(&error))? {
            return Err(place.wrong(format!(
                "`{column}` has to be an integer, unique and never null: `INTEGER PRIMARY KEY`, or `INTEGER NOT NULL UNIQUE`"
            )));
        }
        self.bound(connection, "min").map(drop)
    }

    /// The least or the greatest number of a row.
    fn bound(&self, connection: &Connection, which: &str) -> Result<Option<u64>, ConnectorError> {
        let column = &self.place.config.column;
        let sql = format!("SELECT {which}({}) FROM {}", self.place.column(column), self.place.quoted());
        let mut statement = connection.prepare(&sql).map_err(|error| self.failed(&error))?;
        let number = statement.query_row([], |row| {
            Ok(match row.get_ref(0)? {
                ValueRef::Null => Ok(None),
                ValueRef::Integer(number) => Ok(Some(number)),
                _ => Err(self.no_integer()),
            })
        });
        let number = number.map_err(|error| self.failed(&error))??;
        number.map(|number| self.place.offset(number)).transpose()
    }

    fn no_integer(&self) -> ConnectorError {
        self.place.wrong(format!("`{}` of a row is no integer", self.place.config.column))
    }

    /// Whether the column holds integers, each once, and no null.
    fn grows(&self, connection: &Connection) -> rusqlite::Result<bool> {
        let (table, column) = (&self.place.name, &self.place.config.column);
        let (kind, not_null, key): (String, bool, u32) = connection.query_row(
            "SELECT upper(type), \"notnull\", pk FROM pragma_table_xinfo(?) WHERE name = ?",
            [table, column],
            |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)),
        )?;
        let keys: u32 = connection.query_row(
            "SELECT count(*) FROM pragma_table_xinfo(?) WHERE pk > 0",
            [table],
            |row| row.get(0),
        )?;
        if kind == "INTEGER" && key == 1 && keys == 1 {
            return Ok(true);
        }
        let unique: bool = connection.query_row(
            "SELECT count(*) > 0 FROM pragma_index_list(?1) AS i WHERE i.\"unique\" AND NOT i.partial AND (SELECT \
             group_concat(c.name) FROM pragma_index_info(i.name) AS c) = ?2",
            [table, column],
            |row| row.get(0),
        )?;
        Ok(kind.contains("INT") && not_null && unique)
    }

    fn failed(&self, error: &Error) -> ConnectorError {
        use ErrorCode::*;
        let place = &self.place;
        match error.sqlite_error_code() {
            Some(
                DatabaseBusy
                | DatabaseLocked
                | SystemIoFailure
                | CannotOpen
                | FileLockingProtocolFailed
                | OutOfMemory
                | SchemaChanged,
            ) => place.outage(error),
            Some(DatabaseCorrupt | NotADatabase) => place.damaged(error),
            _ => match error {
                // Its own words hold the whole statement.
                Error::SqlInputError { msg, .. } => place.wrong(msg),
                _ => place.wrong(error),
            },
        }
    }

    fn read(
        &self,
        connection: &Connection,
        wanted: &Wanted,
    ) -> rusqlite::Result<Result<Page, ConnectorError>> {
        let number = |number: u64| i64::try_from(number).unwrap_or(i64::MAX);
        let limit = i64::try_from(wanted.rows).unwrap_or(i64::MAX);
        let mut statement = connection.prepare(&self.page)?;
        let mut rows = statement.query([number(wanted.from), number(wanted.to), limit])?;
        let (mut page, mut bytes) = (Page::default(), 0);
        while let Some(row) = rows.next()? {
            let ValueRef::Integer(number) = row.get_ref(0)? else { return Ok(Err(self.no_integer())) };
            let mut record = Vec::new();
            for (index, (before, kind)) in self.columns.iter().enumerate() {
                record.extend_from_slice(before);
                write(row.get_ref(index + 1)?, *kind, &mut record);
            }
            record.push(b'}');
            bytes += record.len();
            match self.place.offset(number) {
                Ok(offset) => page.rows.push((offset, record)),
                Err(error) => return Ok(Err(error)),
            }
            if bytes >= PAGE_BYTES {
                return Ok(Ok(page));
            }
        }
        page.whole = page.rows.len() < wanted.rows;
        Ok(Ok(page))
    }
}

impl Table for SqliteTable {
    fn seen(&mut self) -> Result<Seen, ConnectorError> {
        let last = self.bound(&self.connect()?, "max")?;
        Ok(Seen { last, ..Seen::default() })
    }

    fn page(&mut self, wanted: &Wanted) -> Result<Page, ConnectorError> {
        let connection = self.connect()?;
        self.read(&connection, wanted).map_err(|error| self.failed(&error))?
    }
}

fn page(place: &Place) -> String {
    let column = place.column(&place.config.column);
    let columns: String =
        place.columns.fields().iter().map(|field| format!(", {}", place.column(field.name()))).collect();
    format!(
        "SELECT {column}{columns} FROM {} WHERE {column} >= ?1 AND {column} <= ?2{} ORDER BY {column} LIMIT ?3",
        place.quoted(),
        place.condition()
    )
}

fn before_values(place: &Place) -> Vec<(Vec<u8>, Option<Kind>)> {
    let fields = place.columns.fields().iter().enumerate();
    let one = |(index, field): (usize, &arrow::datatypes::FieldRef)| {
        let mut before = vec![if index == 0 { b'{' } else { b',' }];
        json::write_text(field.name(), &mut before);
        before.push(b':');
        (before, Kind::of(field))
    };
    fields.map(one).collect()
}

/// Writes a value as JSON, as its column wants it where that is another way to say the same: SQLite has no truth values,
/// no times and no JSON of its own. What JSON cannot say is written as in SQL, which makes the record a bad one.
fn write(value: ValueRef<'_>, kind: Option<Kind>, out: &mut Vec<u8>) {
    match (value, kind) {
        (ValueRef::Null, _) => out.extend_from_slice(b"null"),
        (ValueRef::Integer(truth @ (0 | 1)), Some(Kind::Bool)) => {
            out.extend_from_slice(if truth == 1 { b"true" } else { b"false" });
        }
        (ValueRef::Integer(number), _) => json::write_int(number, out),
        (ValueRef::Real(number), _) if number.is_finite() => json::write_float(number, out),
        (ValueRef::Real(number), _) => out.extend_from_slice(format!("{number}").as_bytes()),
        (ValueRef::Text(text), Some(Kind::Json)) => {
            match serde_json::from_slice::<serde::de::IgnoredAny>(text) {
                Ok(_) => out.extend_from_slice(text),
                Err(_) => write_sql(text, out),
            }
        }
        (ValueRef::Text(text), kind) => match std::str::from_utf8(text) {
            Ok(text) if kind == Some(Kind::Time) => json::write_text(&with_offset(text), out),
            Ok(text) => json::write_text(text, out),
            Err(_) => write_sql(text, out),
        },
        (ValueRef::Blob(blob), _) => {
            out.extend_from_slice(b"x'");
            out.extend(blob.iter().flat_map(|byte| format!("{byte:02X}").into_bytes()));
            out.push(b'\'');
        }
    }
}

/// A text as SQL writes it, which no JSON is.
fn write_sql(text: &[u8], out: &mut Vec<u8>) {
    out.push(b'\'');
    for byte in text {
        out.push(*byte);
        if *byte == b'\'' {
            out.push(b'\'');
        }
    }
    out.push(b'\'');
}

/// A time as SQLite's own functions write it is in UTC, and may end with the day or the minute.
fn with_offset(text: &str) -> String {
    for rest in ["Z", ":00Z", "T00:00:00Z"] {
        let whole = format!("{text}{rest}");
        if timestamp::parse(whole.as_bytes()).is_ok() {
            return whole;
        }
    }
    text.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_written_as_their_columns_want_them() {
        let said = |value: ValueRef<'_>, kind| {
            let mut out = Vec::new();
            write(value, Some(kind), &mut out);
            String::from_utf8(out).unwrap()
        };
        let text = |text: &'static str| ValueRef::Text(text.as_bytes());
        for (value, kind, expected) in [
            (ValueRef::Null, Kind::Text, "null"),
            (ValueRef::Integer(1), Kind::Bool, "true"),
            (ValueRef::Integer(0), Kind::Bool, "false"),
            (ValueRef::Integer(2), Kind::Bool, "2"),
            (ValueRef::Integer(1), Kind::Int, "1"),
            (ValueRef::Integer(i64::MIN), Kind::Float, "-9223372036854775808"),
            (ValueRef::Real(3.0), Kind::Int, "3.0"),
            (ValueRef::Real(0.1), Kind::Float, "0.1"),
            (ValueRef::Real(f64::INFINITY), Kind::Float, "inf"),
            (text("a\"b\n"), Kind::Text, "\"a\\\"b\\n\""),
            (text("2013-01-01 10:17:00"), Kind::Time, "\"2013-01-01 10:17:00Z\""),
            (text("2013-01-01T10:17:00.25"), Kind::Time, "\"2013-01-01T10:17:00.25Z\""),
            (text("2013-01-01 10:17"), Kind::Time, "\"2013-01-01 10:17:00Z\""),
            (text("2013-01-01"), Kind::Time, "\"2013-01-01T00:00:00Z\""),
            (text("2013-01-01 10:17:00+02:00"), Kind::Time, "\"2013-01-01 10:17:00+02:00\""),
            (text("yesterday"), Kind::Time, "\"yesterday\""),
            (text("2013-01-01"), Kind::Text, "\"2013-01-01\""),
            (text("{\"a\": [1]}"), Kind::Json, "{\"a\": [1]}"),
            // Nothing gets out of its column.
            (text("1,\"b\":2"), Kind::Json, "'1,\"b\":2'"),
            (text("it's"), Kind::Json, "'it''s'"),
            (ValueRef::Blob(&[0, 171]), Kind::Text, "x'00AB'"),
        ] {
            assert_eq!(said(value, kind), expected);
        }
    }
}
