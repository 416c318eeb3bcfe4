//! A table of PostgreSQL.
//!
//! The server itself makes the records (`to_json`), under settings of the session that do not depend on its own. Who is
//! writing is known by locks: a transaction has the table locked (`ROW EXCLUSIVE`) before it inserts a row, and the sequence
//! before it draws a number, and both until it has ended. (Its number among the transactions would not do: it may have
//! drawn a row's number before it has one, and then a greater one than a transaction that has committed.) A look is one
//! statement; PostgreSQL takes what rows it sees when it begins, and reads the locks later.

use std::collections::BTreeMap;
use std::error::Error as _;
use std::time::Duration;

use levada_types::{Batch, Blame, ConnectorError};
use postgres::error::{DbError, SqlState};
use postgres::types::{ToSql, Type};
use postgres::{Client, Config, Error, NoTls};

use super::settle::Seen;
use super::table::{Page, Place, Table, Wanted, quoted};
use super::tls;

/// How long a server may take to take a connection.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);
/// After how long a server that is cut off is known to be away.
const CUT_OFF: Duration = Duration::from_secs(10);

/// What a record looks like must not depend on the settings of a server, a database or a user.
const SESSION: &str = "SET TimeZone = 'UTC'; SET extra_float_digits = 1; SET IntervalStyle = 'iso_8601'; SET bytea_output = \
                       'hex'; SET default_transaction_read_only = on";

const COLUMNS: &str = "SELECT attname::text, atttypid, attnum, attnotnull FROM pg_attribute WHERE attrelid = $1 AND attnum \
                       > 0 AND NOT attisdropped";

/// Whether a column is unique. No index of a partitioned table can say so of a column by which it is not partitioned.
const UNIQUE: &str = "SELECT count(*) > 0 FROM pg_index JOIN pg_class ON pg_class.oid = indrelid WHERE indrelid = $1 AND \
                      indisunique AND indisvalid AND indpred IS NULL AND $2 = ANY (indkey::int2[]) AND (indnkeyatts = 1 OR \
                      relkind = 'p')";

/// The sequences of a column: those in its default, and its own.
const SEQUENCES: &str = "SELECT s.seqrelid, s.seqcache, s.seqincrement, s.seqrelid::regclass::text FROM pg_sequence s WHERE \
                         s.seqrelid IN (SELECT refobjid FROM pg_depend d JOIN pg_attrdef a ON d.classid = \
                         'pg_attrdef'::regclass AND d.objid = a.oid WHERE a.adrelid = $1 AND a.adnum = $2 UNION SELECT objid \
                         FROM pg_depend WHERE classid = 'pg_class'::regclass AND refclassid = 'pg_class'::regclass AND \
                         refobjid = $1 AND refobjsubid = $2)";

pub(super) struct PostgresTable {
    place: Place,
    client: Client,
    /// The table, and the sequences of its column.
    table: u32,
    sequences: Vec<u32>,
    look: String,
    page: String,
}

/// A column of a table.
struct Column {
    name: String,
    kind: Type,
    number: i16,
    not_null: bool,
}

impl PostgresTable {
    /// Connects to a table that is as the job file says.
    pub fn connect(place: &Place, config: &Config, encrypted: bool) -> Result<PostgresTable, ConnectorError> {
        let config = complete(place, config)?;
        let failed = |error: Error| failed(place, &error);
        let mut client = match encrypted {
            false => config.connect(NoTls).map_err(failed)?,
            true => config.connect(tls::connector(place, place.config.ca.as_deref())?).map_err(failed)?,
        };
        client.batch_execute(SESSION).map_err(failed)?;
        let table = find(place, &mut client)?;
        let columns = columns(&mut client, table).map_err(failed)?;
        let names: Vec<String> = columns.iter().map(|column| column.name.clone()).collect();
        place.check_columns(&names)?;
        let mut connected = PostgresTable {
            table,
            sequences: Vec::new(),
            look: look(place),
            page: page(place, &columns),
            place: place.clone(),
            client,
        };
        if let Some(column) = columns.iter().find(|column| column.name == place.config.column) {
            connected.check(column)?;
        }
        // That the condition can be understood shows here.
        connected.page(&Wanted { from: 0, to: 0, rows: 0 })?;
        Ok(connected)
    }

    /// That the column that grows does so.
    fn check(&mut self, column: &Column) -> Result<(), ConnectorError> {
        let PostgresTable { place, client, .. } = self;
        let failed = |error: Error| failed(place, &error);
        let of = [(&self.table as &(dyn ToSql + Sync), Type::OID), (&column.number, Type::INT2)];
        let unique: bool =
            client.query_typed_one(UNIQUE, &of).and_then(|row| row.try_get(0)).map_err(failed)?;
        let integer = [Type::INT2, Type::INT4, Type::INT8].contains(&column.kind);
        let name = &column.name;
        if !(integer && unique && column.not_null) {
            return Err(place.wrong(format!(
                "`{name}` has to be an integer, unique and never null, with an index: a primary key, or `NOT NULL UNIQUE`"
            )));
        }
        for sequence in client.query_typed(SEQUENCES, &of).map_err(failed)? {
            let (cache, step): (i64, i64) = (sequence.get(1), sequence.get(2));
            let named: String = sequence.get(3);
            if cache > 1 {
                return Err(place.wrong(format!(
                    "each session takes {cache} values of `{name}` at a time, and inserts smaller ones after greater ones: \
                     `ALTER SEQUENCE {named} CACHE 1`"
                )));
            }
            if step < 0 {
                return Err(place.wrong(format!("sequence {named} counts down, and `{name}` has to grow")));
            }
            self.sequences.push(sequence.get(0));
        }
        let first = format!("SELECT min({})::int8 FROM {}", place.column(name), place.quoted());
        let first: Option<i64> =
            client.query_typed_one(&first, &[]).and_then(|row| row.try_get(0)).map_err(failed)?;
        first.map_or(Ok(()), |first| place.offset(first).map(drop))
    }
}

impl Table for PostgresTable {
    fn seen(&mut self) -> Result<Seen, ConnectorError> {
        let parameters =
            [(&self.table as &(dyn ToSql + Sync), Type::OID), (&self.sequences, Type::OID_ARRAY)];
        let row = self.client.query_typed_one(&self.look, &parameters);
        let row = row.map_err(|error| failed(&self.place, &error))?;
        let last: Option<i64> = row.get(0);
        let (names, processes): (Vec<String>, Vec<i32>) = (row.get(1), row.get(2));
        let whose = |process| match process {
            0 => "a prepared transaction".to_string(),
            process => format!("process {process} of the server"),
        };
        let writers: BTreeMap<_, _> = names.into_iter().zip(processes.into_iter().map(whose)).collect();
        Ok(Seen { last: last.map(|last| self.place.offset(last)).transpose()?, writers })
    }

    fn page(&mut self, wanted: &Wanted) -> Result<Page, ConnectorError> {
        let number = |number: u64| i64::try_from(number).unwrap_or(i64::MAX);
        let (from, to) = (number(wanted.from), number(wanted.to));
        let limit = i64::try_from(wanted.rows).unwrap_or(i64::MAX);
        let parameters =
            [(&from as &(dyn ToSql + Sync), Type::INT8), (&to, Type::INT8), (&limit, Type::INT8)];
        let rows = self.client.query_typed(&self.page, &parameters);
        let rows = rows.map_err(|error| failed(&self.place, &error))?;
        let mut page = Page { rows: Vec::with_capacity(rows.len()), whole: rows.len() < wanted.rows };
        for row in rows {
            page.rows.push((self.place.offset(row.get(0))?, row.get::<_, &str>(1).into()));
        }
        Ok(page)
    }
}

/// The settings of a connection, with the password, which is read each time: it may be another one by now.
fn complete(place: &Place, config: &Config) -> Result<Config, ConnectorError> {
    let mut config = config.clone();
    if config.get_connect_timeout().is_none() {
        config.connect_timeout(CONNECT_TIMEOUT);
    }
    if config.get_tcp_user_timeout().is_none() {
        config.tcp_user_timeout(CUT_OFF);
        config.keepalives_idle(CUT_OFF).keepalives_interval(CUT_OFF / 3).keepalives_retries(3);
    }
    if config.get_application_name().is_none() {
        config.application_name("levada");
    }
    if let Some(password) = &place.config.password {
        config.password(password.read("the database's")?);
    }
    Ok(config)
}

/// The table's number in the server.
fn find(place: &Place, client: &mut Client) -> Result<u32, ConnectorError> {
    let failed = |error: Error| failed(place, &error);
    let name = place.quoted();
    let found = client.query_typed_opt(
        "SELECT oid, relkind::text, pg_is_in_recovery() FROM pg_class WHERE oid = to_regclass($1)",
        &[(&name, Type::TEXT)],
    );
    let Some(row) = found.map_err(failed)? else {
        let known = client.query_typed(
            "SELECT relname::text FROM pg_class JOIN pg_namespace n ON n.oid = relnamespace WHERE relkind IN ('r', 'p') AND \
             CASE WHEN $1 IS NULL THEN pg_table_is_visible(pg_class.oid) ELSE nspname = $1 END",
            &[(&place.schema, Type::TEXT)],
        );
        let known: Vec<String> = known.map_err(failed)?.iter().map(|row| row.get(0)).collect();
        return Err(place.no_table(&known));
    };
    let (table, kind, standby): (u32, String, bool) = (row.get(0), row.get(1), row.get(2));
    if !["r", "p"].contains(&kind.as_str()) {
        return Err(place.wrong(
            "it is no table (a view, perhaps), so nobody can tell who writes to it; name a table, and say \
                                in `where` which rows",
        ));
    }
    if standby {
        return Err(place.wrong("it is a standby, which does not know who is writing; name its primary"));
    }
    Ok(table)
}

fn columns(client: &mut Client, table: u32) -> Result<Vec<Column>, Error> {
    let rows = client.query_typed(COLUMNS, &[(&table, Type::OID)])?;
    let column = |row: &postgres::Row| Column {
        name: row.get(0),
        // Of types that are not built in nothing needs to be known.
        kind: Type::from_oid(row.get(1)).unwrap_or(Type::UNKNOWN),
        number: row.get(2),
        not_null: row.get(3),
    };
    Ok(rows.iter().map(column).collect())
}

/// The last row, and then who is writing to the table, its partitions, or its sequences.
fn look(place: &Place) -> String {
    format!(
        "WITH RECURSIVE tables(id) AS (SELECT $1::oid UNION SELECT inhrelid FROM pg_inherits JOIN tables ON inhparent = \
         id), writers AS MATERIALIZED (SELECT DISTINCT virtualtransaction AS name, coalesce(pid, 0) AS process FROM pg_locks \
         WHERE locktype = 'relation' AND mode = 'RowExclusiveLock' AND granted AND database = (SELECT oid FROM pg_database \
         WHERE datname = current_database()) AND (relation = ANY ($2) OR relation IN (SELECT id FROM tables))) SELECT \
         (SELECT max({})::int8 FROM {}), (SELECT coalesce(array_agg(name ORDER BY name), '{{}}') FROM writers), (SELECT \
         coalesce(array_agg(process ORDER BY name), '{{}}') FROM writers)",
        place.column(&place.config.column),
        place.quoted()
    )
}

fn page(place: &Place, columns: &[Column]) -> String {
    let number = place.column(&place.config.column);
    let one = |field: &arrow::datatypes::FieldRef| {
        let column = place.column(field.name());
        let kind = columns.iter().find(|column| column.name == *field.name()).map(|column| &column.kind);
        let local = kind.is_some_and(|kind| [Type::TIMESTAMP, Type::DATE].contains(kind));
        let value = match local && *field.data_type() == Batch::timestamp_type() {
            // A time without an offset is in UTC.
            true => format!("{column}::timestamp AT TIME ZONE 'UTC'"),
            false => column,
        };
        format!("{value} AS {}", quoted(field.name()))
    };
    let record: Vec<String> = place.columns.fields().iter().map(one).collect();
    format!(
        "SELECT {number}::int8, (SELECT to_json(r.*)::text FROM (SELECT {}) AS r) FROM {} WHERE {number} >= $1 AND {number} \
         <= $2{} ORDER BY {number} LIMIT $3",
        record.join(", "),
        place.quoted(),
        place.condition()
    )
}

/// An error in its terms.
fn failed(place: &Place, error: &Error) -> ConnectorError {
    if let Some(error) = error.as_db_error() {
        return refused(place, error);
    }
    let mut why = error.to_string();
    let (mut source, mut blame) = (error.source(), Blame::Configuration);
    if error.is_closed() {
        blame = Blame::Outage;
    }
    while let Some(error) = source {
        why = format!("{why}: {error}");
        if let Some(error) = error.downcast_ref::<std::io::Error>() {
            // That a certificate is not trusted does not pass.
            let of_tls = error.get_ref().is_some_and(|inner| inner.is::<rustls::Error>());
            blame = if of_tls { Blame::Configuration } else { Blame::Outage };
        }
        source = error.source();
    }
    let hint = match &place.config.password {
        None if why.contains("password missing") => "; say `password = { env = \"NAME\" }`",
        _ if why.contains("certificate") => {
            "; say in `ca` which authorities are trusted, or `sslmode=disable` in `url`"
        }
        _ if why.contains("does not support TLS") => {
            "; say `?sslmode=disable` in `url` if that is as it should be"
        }
        _ => "",
    };
    ConnectorError { blame, ..place.wrong(format!("{why}{hint}")) }
}

/// What the server refuses, and whether that may pass.
fn refused(place: &Place, error: &DbError) -> ConnectorError {
    let code = error.code();
    let class = code.code().get(..2).unwrap_or_default();
    let hint = match class {
        "28" => "; is the user in `url` right, and the `password`?",
        _ if *code == SqlState::INSUFFICIENT_PRIVILEGE => "; the user needs SELECT on the table",
        _ => "",
    };
    let error = place.wrong(format!("the server says: {}{hint}", error.message()));
    let blame = match class {
        "XX" => Blame::Damage,
        // Connections, resources, a server that stops or starts, statements that were cancelled, deadlocks.
        "08" | "53" | "57" | "58" | "40" | "55" => Blame::Outage,
        _ => Blame::Configuration,
    };
    ConnectorError { blame, ..error }
}
