//! What a job file says about a table.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use levada_types::{DURATION_PATTERN, parse_duration_ms};
use postgres::Config;
use postgres::config::Host;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::Secret;

/// A table to read: its rows in the order of a column that grows.
///
/// Rows must not be changed or deleted while a run may read them again, which are those that came since the oldest
/// checkpoint; and none may be added whose number is smaller than that of one that is there.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SqlSourceConfig {
    /// The database: `postgres://USER@HOST:PORT/DATABASE`, or `sqlite:PATH`. A server on another machine is reached by
    /// TLS, its certificate checked; `?sslmode=disable` is without, and `?sslmode=require` with it everywhere.
    pub url: SqlUrl,
    /// The password, which does not stand in the job file: `{ env = "NAME" }` or `{ file = "PATH" }`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub password: Option<Secret>,
    /// A file with the certificates (PEM) of the authorities that are trusted instead of the public ones.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ca: Option<PathBuf>,
    /// The table, as in `feedback` or `public.feedback`. Its name is taken as it is written, capitals too.
    pub table: String,
    /// The column that grows with each row that is added, and is the record's offset: an integer, unique, never null,
    /// never negative. An identity or serial column, or SQLite's `INTEGER PRIMARY KEY AUTOINCREMENT`.
    pub column: String,
    /// Which rows to read, as a condition of the database's own SQL; all by default.
    #[serde(default, rename = "where", skip_serializing_if = "Option::is_none")]
    pub condition: Option<String>,
    /// How long to wait before a table that had nothing new is asked again: 1 s by default.
    #[serde(default = "default_poll")]
    #[schemars(extend("pattern" = DURATION_PATTERN))]
    pub poll: String,
    /// Where to begin: `"beginning"` or `"end"`.
    #[serde(default)]
    pub start: StartFrom,
}

fn default_poll() -> String {
    "1s".into()
}

/// Where a job that begins afresh begins to read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum StartFrom {
    /// With the first row.
    #[default]
    Beginning,
    /// With the first row that is not there yet.
    End,
}

/// The address of a database. A password in it is refused, and shown nowhere.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(transparent)]
pub struct SqlUrl(String);

/// A database, understood.
#[derive(Clone, Debug)]
pub(super) enum Database {
    Sqlite(PathBuf),
    Postgres { config: Box<Config>, tls: bool },
}

/// What is wrong, and with which field.
pub(super) type Fault = (Option<&'static str>, String);

impl SqlUrl {
    /// Takes an address as it is written in a job file.
    pub fn new(url: impl Into<String>) -> SqlUrl {
        SqlUrl(url.into())
    }

    /// Whether a password stands in it.
    fn has_password(&self) -> bool {
        let rest = self.0.split_once("://").map_or("", |(_, rest)| rest);
        let user = rest.rsplit_once('@').map_or("", |(user, _)| user);
        user.contains(':') || rest.contains("password=")
    }

    fn database(&self) -> Result<Database, String> {
        const FORM: &str = "write it as in `postgres://USER@HOST:5432/DATABASE` or `sqlite:PATH`";
        if let Some(path) = self.0.strip_prefix("sqlite:") {
            let path = path.strip_prefix("//").unwrap_or(path);
            return match path {
                "" | ":memory:" => {
                    Err("a database of SQLite that others write to is a file: `sqlite:PATH`".into())
                }
                _ => Ok(Database::Sqlite(path.into())),
            };
        }
        if !["postgres://", "postgresql://"].iter().any(|scheme| self.0.starts_with(scheme)) {
            return Err(FORM.into());
        }
        let (url, sslmode) = without_sslmode(&self.0);
        let mut config: Config = url.parse().map_err(|error| {
            let why = std::error::Error::source(&error).map_or_else(String::new, |why| format!(": {why}"));
            format!("it is no address of PostgreSQL{why}; {FORM}")
        })?;
        if config.get_hosts().is_empty() {
            return Err(format!("there is no host in it; {FORM}"));
        }
        let tls = match sslmode {
            None => !config.get_hosts().iter().all(is_here),
            Some("disable") => false,
            Some("require" | "verify-ca" | "verify-full") => true,
            Some(_) => {
                return Err("`sslmode` is `disable`, or `verify-full`, which `require` means here too".into());
            }
        };
        config.ssl_mode(if tls {
            postgres::config::SslMode::Require
        } else {
            postgres::config::SslMode::Disable
        });
        Ok(Database::Postgres { config: Box::new(config), tls })
    }
}

/// Takes the mode out of the parameters: not all modes that others know are known to the client.
fn without_sslmode(url: &str) -> (String, Option<&str>) {
    let Some((place, parameters)) = url.split_once('?') else { return (url.into(), None) };
    let mode = parameters.split('&').find_map(|parameter| parameter.strip_prefix("sslmode="));
    let others: Vec<&str> =
        parameters.split('&').filter(|parameter| !parameter.starts_with("sslmode=")).collect();
    (format!("{place}?{}", others.join("&")), mode)
}

/// Whether a host is this machine.
fn is_here(host: &Host) -> bool {
    match host {
        Host::Unix(_) => true,
        Host::Tcp(name) => {
            let address = name.trim_matches(['[', ']']).parse::<std::net::IpAddr>();
            name == "localhost" || address.is_ok_and(|address| address.is_loopback())
        }
    }
}

impl fmt::Display for SqlUrl {
    /// Without user, password and parameters.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some((scheme, rest)) = self.0.split_once("://").filter(|(scheme, _)| *scheme != "sqlite") else {
            return f.write_str(&self.0);
        };
        let rest = rest.split(['?', '#']).next().unwrap_or_default();
        let place = rest.rsplit_once('@').map_or(rest, |(_, place)| place);
        write!(f, "{scheme}://{place}")
    }
}

impl fmt::Debug for SqlUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SqlUrl({self})")
    }
}

impl SqlSourceConfig {
    /// The fields that say how it is reached and how patiently: a job is the same whatever they say.
    pub const REACHED_BY: &[&str] = &["url", "password", "ca", "poll"];

    /// A table of a database, read from its beginning.
    pub fn new(
        url: impl Into<String>,
        table: impl Into<String>,
        column: impl Into<String>,
    ) -> SqlSourceConfig {
        SqlSourceConfig {
            url: SqlUrl::new(url),
            password: None,
            ca: None,
            table: table.into(),
            column: column.into(),
            condition: None,
            poll: default_poll(),
            start: StartFrom::default(),
        }
    }

    /// What is wrong with it, and with which field.
    ///
    /// # Errors
    /// Then.
    pub fn check(&self) -> Result<(), (Option<&'static str>, String)> {
        self.database()?;
        self.table_parts()?;
        if self.column.is_empty() {
            return Err((Some("column"), "a column has a name".into()));
        }
        if self.condition.as_ref().is_some_and(|condition| condition.trim().is_empty()) {
            return Err((Some("where"), "a condition says something; leave it out to read all rows".into()));
        }
        self.poll().map(drop)
    }

    pub(super) fn database(&self) -> Result<Database, Fault> {
        if self.url.has_password() {
            // Not with the field, or its line would be shown.
            let message = "a password does not belong in a job file: take it out of `url`, and say `password = { env = \
                           \"NAME\" }`";
            return Err((None, message.into()));
        }
        let mut database = self.url.database().map_err(|why| (Some("url"), why))?;
        match &mut database {
            Database::Sqlite(_) => {
                let idle = [("password", self.password.is_some()), ("ca", self.ca.is_some())];
                if let Some((field, _)) = idle.into_iter().find(|(_, said)| *said) {
                    return Err((Some(field), "a file of SQLite has none; it is for PostgreSQL".into()));
                }
            }
            Database::Postgres { config, tls } if self.ca.is_some() => {
                if without_sslmode(&self.url.0).1 == Some("disable") {
                    return Err((
                        Some("ca"),
                        "`sslmode=disable` in `url` leaves no certificate to check".into(),
                    ));
                }
                *tls = true;
                config.ssl_mode(postgres::config::SslMode::Require);
            }
            Database::Postgres { .. } => {}
        }
        Ok(database)
    }

    /// Schema, if one is said, and name of the table.
    pub(super) fn table_parts(&self) -> Result<(Option<&str>, &str), Fault> {
        let (schema, name) = self
            .table
            .split_once('.')
            .map_or((None, self.table.as_str()), |(schema, name)| (Some(schema), name));
        if schema == Some("") || name.is_empty() || name.contains('.') {
            return Err((Some("table"), "a table is written as `NAME` or `SCHEMA.NAME`".into()));
        }
        Ok((schema, name))
    }

    pub(super) fn poll(&self) -> Result<Duration, Fault> {
        match parse_duration_ms(&self.poll).map(u64::try_from) {
            Ok(Ok(ms)) if ms > 0 => Ok(Duration::from_millis(ms)),
            Ok(_) => Err((Some("poll"), "it has to be longer than nothing".into())),
            Err(why) => Err((Some("poll"), why)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(url: &str) -> SqlSourceConfig {
        SqlSourceConfig::new(url, "feedback", "id")
    }

    #[test]
    fn a_password_is_refused_and_not_shown() {
        for url in [
            "postgres://me:s3cret@db.example/shop",
            "postgres://me:s3/cr@t@db.example/shop",
            "postgresql://db.example/shop?user=me&password=s3cret",
        ] {
            let config = config(url);
            let (field, message) = config.check().unwrap_err();
            assert_eq!(field, None);
            assert!(message.contains("does not belong in a job file"), "{message}");
            assert!(!format!("{message} {config:?}").contains("s3"), "{config:?}");
        }
        assert_eq!(SqlUrl::new("postgres://me@db.example/shop").to_string(), "postgres://db.example/shop");
        assert_eq!(SqlUrl::new("sqlite:a@b.db").to_string(), "sqlite:a@b.db");
    }

    #[test]
    fn another_machine_is_reached_by_tls() {
        let tls = |config: &SqlSourceConfig| match config.database().unwrap() {
            Database::Postgres { tls, .. } => tls,
            Database::Sqlite(path) => panic!("{}", path.display()),
        };
        for (url, expected) in [
            ("postgres://me@localhost/shop", false),
            ("postgres://me@127.0.0.1:5433/shop", false),
            ("postgres://me@%2Frun%2Fpostgresql/shop", false),
            ("postgres://me@db.example/shop", true),
            ("postgres://me@db.example/shop?sslmode=disable", false),
            ("postgres://me@localhost/shop?sslmode=verify-full&application_name=levada", true),
        ] {
            assert_eq!(tls(&config(url)), expected, "{url}");
        }
        let ca = Some("ca.pem".into());
        assert!(tls(&SqlSourceConfig { ca: ca.clone(), ..config("postgres://me@localhost/shop") }));
        let off = SqlSourceConfig { ca, ..config("postgres://me@localhost/shop?sslmode=disable") };
        assert_eq!(off.check().unwrap_err().0, Some("ca"));
    }

    #[test]
    fn what_is_wrong_is_said_with_the_field() {
        let good = config("sqlite:feedback.db");
        assert_eq!(good.check(), Ok(()));
        let field = |config: SqlSourceConfig| config.check().unwrap_err().0;
        for url in
            ["mysql://db/shop", "sqlite:", "sqlite::memory:", "postgres://", "postgres://h/d?sslmode=prefer"]
        {
            assert_eq!(field(config(url)), Some("url"), "{url}");
        }
        for table in ["", ".", "a.", ".b", "a.b.c"] {
            assert_eq!(
                field(SqlSourceConfig { table: table.into(), ..good.clone() }),
                Some("table"),
                "{table}"
            );
        }
        assert_eq!(field(SqlSourceConfig { column: String::new(), ..good.clone() }), Some("column"));
        assert_eq!(field(SqlSourceConfig { condition: Some(" ".into()), ..good.clone() }), Some("where"));
        assert_eq!(field(SqlSourceConfig { poll: "0s".into(), ..good.clone() }), Some("poll"));
        let password = Some(Secret::Env("PASSWORD".into()));
        assert_eq!(field(SqlSourceConfig { password, ..good.clone() }), Some("password"));
        assert_eq!(field(SqlSourceConfig { ca: Some("ca.pem".into()), ..good }), Some("ca"));
    }
}
