//! A server: how it is reached, what its refusals mean, and how long to wait before it is tried again.

use std::sync::Once;
use std::time::{Duration, Instant};

use levada_types::{Blame, ConnectorError};
use redis::{
    Client, Cmd, Connection, ConnectionLike, ErrorKind, RedisError, RedisResult, ServerErrorKind, Value,
};

use super::{EntryId, RedisUrl};

/// How long a server may take to take a connection.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);

/// How long a server may be silent when it is asked something. It answers what is asked here in milliseconds.
pub(super) const RESPONSE_TIMEOUT: Duration = Duration::from_secs(10);

/// The waits between tries: each is twice the one before it.
const FIRST_WAIT: Duration = Duration::from_millis(100);
const LONGEST_WAIT: Duration = Duration::from_secs(10);

/// How long a job that only begins waits for its server.
const PATIENCE: Duration = Duration::from_secs(30);

/// A server that may be connected to, any number of times.
#[derive(Clone, Debug)]
pub(super) struct Server {
    client: Client,
    url: RedisUrl,
}

impl Server {
    pub(super) fn new(url: &RedisUrl) -> Result<Server, ConnectorError> {
        // Of several crates that use TLS in one process, the first one chooses.
        static PROVIDER: Once = Once::new();
        PROVIDER.call_once(|| drop(rustls::crypto::ring::default_provider().install_default()));
        let client = Client::open(url.secret()).map_err(|error| {
            ConnectorError::configuration(format!(
                "use {url}: {error}; write it as in `redis://USER:PASSWORD@HOST:6379/0`"
            ))
        })?;
        Ok(Server { client, url: url.clone() })
    }

    fn connect(&self) -> RedisResult<Connection> {
        let connection = self.client.get_connection_with_timeout(CONNECT_TIMEOUT)?;
        connection.set_read_timeout(Some(RESPONSE_TIMEOUT))?;
        connection.set_write_timeout(Some(RESPONSE_TIMEOUT))?;
        Ok(connection)
    }
}

/// A connection that comes back: it is made when it is needed, and after a failure made again, later each time.
pub(super) struct Link {
    server: Server,
    /// What it is for: finishes the sentence "failed to …".
    what: String,
    connection: Option<Connection>,
    /// The next wait, and when the one under way is over.
    wait: Duration,
    until: Option<Instant>,
    failures: u32,
}

impl Link {
    pub(super) fn new(server: &Server, what: impl Into<String>) -> Link {
        Link {
            server: server.clone(),
            what: what.into(),
            connection: None,
            wait: FIRST_WAIT,
            until: None,
            failures: 0,
        }
    }

    /// Asks something; nothing if the server is away, which has been said then. `ask` may be called with a
    /// connection that was made just now, and after a failure it is not known what the server has done.
    ///
    /// # Errors
    /// When it refuses for a reason that does not pass.
    pub(super) fn ask<T>(
        &mut self,
        ask: impl FnOnce(&mut Connection) -> RedisResult<T>,
    ) -> Result<Option<T>, ConnectorError> {
        if self.away().is_some() {
            return Ok(None);
        }
        let connection = match self.connection.take() {
            Some(connection) => Ok(connection),
            None => self.server.connect(),
        };
        let answer = connection.and_then(|mut connection| {
            let answer = ask(&mut connection)?;
            self.connection = Some(connection);
            Ok(answer)
        });
        match answer {
            Ok(answer) => {
                if self.failures > 0 {
                    tracing::info!(server = %self.server.url, "the server answers again, to {}", self.what);
                }
                (self.wait, self.until, self.failures) = (FIRST_WAIT, None, 0);
                Ok(Some(answer))
            }
            Err(error) => {
                let error = self.failed(&error);
                if error.blame != Blame::Outage {
                    return Err(error);
                }
                self.failures += 1;
                self.until = Some(Instant::now() + self.wait);
                tracing::warn!("{error}; trying again in {:?} (failure {})", self.wait, self.failures);
                self.wait = (self.wait * 2).min(LONGEST_WAIT);
                Ok(None)
            }
        }
    }

    /// As [`Link::ask`], for a job that begins: waits for a server that is away for a while.
    pub(super) fn ask_patiently<T>(
        &mut self,
        ask: impl Fn(&mut Connection) -> RedisResult<T>,
    ) -> Result<T, ConnectorError> {
        let patience = Instant::now() + PATIENCE;
        loop {
            if let Some(answer) = self.ask(&ask)? {
                return Ok(answer);
            }
            if Instant::now() >= patience {
                let Link { what, server, .. } = self;
                return Err(ConnectorError::outage(format!(
                    "{what}: {} has not answered in {PATIENCE:?}",
                    server.url
                )));
            }
            self.pause(PATIENCE);
        }
    }

    /// How long the server is not to be tried yet.
    pub(super) fn away(&self) -> Option<Duration> {
        self.until?.checked_duration_since(Instant::now()).filter(|left| !left.is_zero())
    }

    /// Waits until the server is to be tried again, or for `most`.
    pub(super) fn pause(&self, most: Duration) {
        if let Some(left) = self.away() {
            std::thread::park_timeout(left.min(most));
        }
    }

    /// Whether the connection of before is still there, with all that belongs to it.
    pub(super) fn is_connected(&self) -> bool {
        self.connection.is_some()
    }

    /// An error in its terms.
    pub(super) fn failed(&self, error: &RedisError) -> ConnectorError {
        let Link { what, server: Server { url, .. }, .. } = self;
        let hint = match error.code() {
            Some("NOAUTH") => "; say who asks, as in `redis://USER:PASSWORD@HOST`",
            Some("WRONGTYPE") => "; what is there is no stream",
            Some("READONLY") => "; it is a replica, name its master",
            Some("NOPERM") => "; the user lacks the right",
            _ if error.kind() == ErrorKind::AuthenticationFailed => "; is the password in `url` right?",
            _ => "",
        };
        ConnectorError { blame: blame(error), message: format!("{what}: {url} says: {error}{hint}") }
    }

    /// An error of the configuration.
    pub(super) fn wrong(&self, why: impl std::fmt::Display) -> ConnectorError {
        ConnectorError::configuration(format!("{}: {why}", self.what))
    }

    /// What is stored is not what has been written or read.
    pub(super) fn damaged(&self, why: impl std::fmt::Display) -> ConnectorError {
        ConnectorError::damage(format!("{}: {why}", self.what))
    }
}

/// Whether it may pass.
fn blame(error: &RedisError) -> Blame {
    use ServerErrorKind as Server;
    match error.kind() {
        ErrorKind::Io => Blame::Outage,
        ErrorKind::Server(
            Server::BusyLoading | Server::TryAgain | Server::ClusterDown | Server::MasterDown,
        ) => Blame::Outage,
        _ => match error.code() {
            // Out of memory, not able to save, too few replicas: somebody mends it.
            Some("OOM" | "MISCONF" | "NOREPLICAS" | "BUSY") => Blame::Outage,
            _ if error.to_string().contains("max number of clients") => Blame::Outage,
            _ => Blame::Configuration,
        },
    }
}

/// Sends commands together; their replies, refusals among them.
pub(super) fn together(connection: &mut Connection, commands: &[Cmd]) -> RedisResult<Vec<Value>> {
    let mut bytes = Vec::new();
    for command in commands {
        command.write_packed_command(&mut bytes);
    }
    connection.req_packed_commands(&bytes, 0, commands.len())
}

/// Runs commands as one transaction; the reply of each, or `None` where a watched key has changed.
///
/// # Errors
/// When the server is out of reach, or refuses one of them as it stands: then none has been run.
pub(super) fn transaction(connection: &mut Connection, commands: &[Cmd]) -> RedisResult<Option<Vec<Value>>> {
    let all: Vec<Cmd> = [redis::cmd("MULTI")]
        .into_iter()
        .chain(commands.iter().cloned())
        .chain([redis::cmd("EXEC")])
        .collect();
    executed(together(connection, &all)?)
}

/// What came of a transaction, out of all its replies.
pub(super) fn executed(mut replies: Vec<Value>) -> RedisResult<Option<Vec<Value>>> {
    let last = replies.pop().unwrap_or_default();
    for reply in replies {
        if let Value::ServerError(error) = reply {
            return Err(error.into());
        }
    }
    match last {
        Value::Array(results) => Ok(Some(results)),
        Value::Nil => Ok(None),
        Value::ServerError(error) => Err(error.into()),
        other => Err(unexpected("a transaction's results", &other)),
    }
}

/// A reply that is none.
pub(super) fn unexpected(wanted: &'static str, found: &Value) -> RedisError {
    let found: String = format!("{found:?}").chars().take(100).collect();
    RedisError::from((
        ErrorKind::UnexpectedReturnType,
        "the reply is not what was asked for",
        format!("{wanted} expected, {found} found"),
    ))
}

/// What a server tells of a stream. A stream that is not there is as one that never held anything.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct StreamInfo {
    /// Whether it is there.
    pub there: bool,
    /// How many entries it holds.
    pub length: u64,
    /// The first one held.
    pub first: Option<EntryId>,
    /// The last id that was ever added.
    pub last: EntryId,
    /// The greatest id that was deleted by itself (not by trimming).
    pub deleted: EntryId,
    /// How many entries were ever added; servers before Redis 7 do not tell.
    pub added: Option<u64>,
}

impl StreamInfo {
    pub(super) fn command(stream: &str) -> Cmd {
        let mut command = redis::cmd("XINFO");
        command.arg("STREAM").arg(stream);
        command
    }

    pub(super) fn ask(connection: &mut Connection, stream: &str) -> RedisResult<StreamInfo> {
        let mut replies = together(connection, &[StreamInfo::command(stream)])?;
        StreamInfo::of(replies.pop().unwrap_or_default())
    }

    /// Reads the reply.
    pub(super) fn of(reply: Value) -> RedisResult<StreamInfo> {
        let fields = match reply {
            Value::Array(fields) => fields,
            Value::Map(pairs) => pairs.into_iter().flat_map(|(name, value)| [name, value]).collect(),
            Value::ServerError(error) if error.details().is_some_and(|why| why.contains("no such key")) => {
                return Ok(StreamInfo::default());
            }
            Value::ServerError(error) => return Err(error.into()),
            other => return Err(unexpected("a stream's description", &other)),
        };
        let mut info = StreamInfo { there: true, ..StreamInfo::default() };
        for pair in fields.chunks_exact(2) {
            let [name, value] = pair else { continue };
            let number = || match value {
                Value::Int(number) => u64::try_from(*number).ok(),
                _ => None,
            };
            match text(name) {
                Some("length") => info.length = number().unwrap_or_default(),
                Some("entries-added") => info.added = number(),
                Some("last-generated-id") => info.last = id(value)?,
                Some("max-deleted-entry-id") => info.deleted = id(value)?,
                Some("first-entry") => {
                    info.first = match value {
                        Value::Array(entry) => entry.first().map(id).transpose()?,
                        _ => None,
                    }
                }
                _ => {}
            }
        }
        Ok(info)
    }

    /// How many entries were added and are no longer held.
    pub(super) fn removed(&self) -> Option<u64> {
        self.added?.checked_sub(self.length)
    }
}

/// A reply's text.
pub(super) fn text(value: &Value) -> Option<&str> {
    match value {
        Value::BulkString(bytes) => std::str::from_utf8(bytes).ok(),
        Value::SimpleString(text) => Some(text),
        _ => None,
    }
}

/// A reply that is an entry's id.
pub(super) fn id(value: &Value) -> RedisResult<EntryId> {
    text(value).and_then(|text| text.parse().ok()).ok_or_else(|| unexpected("an entry's id", value))
}
