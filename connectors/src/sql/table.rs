//! A table, whatever the database: what is asked of it, and what an answer looks like.

use arrow::datatypes::SchemaRef;
use levada_types::{ConnectorError, nearest};

use super::config::{Database, Fault, SqlSourceConfig};
use super::settle::Seen;

/// A connection to a table.
pub(super) trait Table: Send {
    /// The last row that is there, and then who is writing.
    fn seen(&mut self) -> Result<Seen, ConnectorError>;

    /// The first rows of those from one number to another, both included, in their order.
    fn page(&mut self, wanted: &Wanted) -> Result<Page, ConnectorError>;
}

/// Which rows are asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Wanted {
    pub from: u64,
    pub to: u64,
    /// How many at most.
    pub rows: usize,
}

/// Some rows.
#[derive(Debug, Default)]
pub(super) struct Page {
    /// Each row's number, growing, and the row as JSON.
    pub rows: Vec<(u64, Vec<u8>)>,
    /// Whether there is none behind them among those that were asked for.
    pub whole: bool,
}

/// Where a table is, and what is wanted of its rows.
#[derive(Clone, Debug)]
pub(super) struct Place {
    pub config: SqlSourceConfig,
    pub database: Database,
    pub schema: Option<String>,
    pub name: String,
    /// The columns of a record.
    pub columns: SchemaRef,
}

impl Place {
    pub fn new(config: &SqlSourceConfig, columns: SchemaRef) -> Result<Place, Fault> {
        config.check()?;
        let (schema, name) = config.table_parts()?;
        let (schema, name) = (schema.map(str::to_owned), name.to_owned());
        Ok(Place { database: config.database()?, config: config.clone(), schema, name, columns })
    }

    /// For people.
    pub fn describe(&self) -> String {
        format!("table {} of {}", self.config.table, self.config.url)
    }

    /// Connects, and looks whether the table is as the job file says.
    pub fn connect(&self) -> Result<Box<dyn Table>, ConnectorError> {
        match &self.database {
            Database::Sqlite(path) => Ok(Box::new(super::sqlite::SqliteTable::open(self, path)?)),
            Database::Postgres { config, tls } => {
                Ok(Box::new(super::postgres::PostgresTable::connect(self, config, *tls)?))
            }
        }
    }

    /// The table's name in SQL.
    pub fn quoted(&self) -> String {
        match &self.schema {
            Some(schema) => format!("{}.{}", quoted(schema), quoted(&self.name)),
            None => quoted(&self.name),
        }
    }

    /// A column of the table in SQL. With the table's name it is no text, which SQLite takes a name for that is unknown.
    pub fn column(&self, column: &str) -> String {
        format!("{}.{}", quoted(&self.name), quoted(column))
    }

    /// The condition on the rows, to follow another one.
    pub fn condition(&self) -> String {
        // On lines of its own: it may end with a comment.
        self.config.condition.as_ref().map_or_else(String::new, |condition| format!(" AND (\n{condition}\n)"))
    }

    /// What was wrong, as an error that finishes the sentence "failed to …".
    pub fn wrong(&self, why: impl std::fmt::Display) -> ConnectorError {
        ConnectorError::configuration(format!("read {}: {why}", self.describe()))
    }

    pub fn damaged(&self, why: impl std::fmt::Display) -> ConnectorError {
        ConnectorError::damage(format!("read {}: {why}", self.describe()))
    }

    pub fn outage(&self, why: impl std::fmt::Display) -> ConnectorError {
        ConnectorError::outage(format!("read {}: {why}", self.describe()))
    }

    /// There is no table of that name, among these.
    pub fn no_table(&self, known: &[String]) -> ConnectorError {
        self.wrong(format!("there is no table `{}`{}", self.config.table, meant(&self.name, known)))
    }

    /// That the column that grows, and those of a record, are among the table's.
    pub fn check_columns(&self, known: &[String]) -> Result<(), ConnectorError> {
        let wanted = self.columns.fields().iter().map(|field| field.name());
        for column in std::iter::once(&self.config.column).chain(wanted) {
            if !known.contains(column) {
                let meant = meant(column, known);
                return Err(self.wrong(format!("the table has no column `{column}`{meant}")));
            }
        }
        Ok(())
    }

    /// A row's number as an offset.
    pub fn offset(&self, number: i64) -> Result<u64, ConnectorError> {
        let column = &self.config.column;
        u64::try_from(number).map_err(|_| {
            self.wrong(format!("`{column}` of a row is {number}, and a record's offset is never negative"))
        })
    }
}

fn meant(wrong: &str, known: &[String]) -> String {
    let known: Vec<&str> = known.iter().map(String::as_str).collect();
    nearest(wrong, &known).map_or_else(String::new, |name| format!("; did you mean `{name}`?"))
}

/// A name in SQL.
pub(super) fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}
