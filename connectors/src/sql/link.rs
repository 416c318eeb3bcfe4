//! A connection that comes back: it is made when it is needed, and after a failure made again, later each time.

use std::sync::Arc;
use std::time::{Duration, Instant};

use levada_types::{Blame, ConnectorError};

use super::table::{Place, Table};

/// The waits between tries: each is twice the one before it.
const FIRST_WAIT: Duration = Duration::from_millis(100);
const LONGEST_WAIT: Duration = Duration::from_secs(10);

/// How long a job that only begins waits for its database.
const PATIENCE: Duration = Duration::from_secs(30);

/// A table that is asked now and then.
pub(super) struct Link {
    place: Arc<Place>,
    table: Option<Box<dyn Table>>,
    /// How often it was connected to.
    connections: u64,
    /// The next wait, and when the one under way is over.
    wait: Duration,
    until: Option<Instant>,
    failures: u32,
}

impl Link {
    pub fn new(place: &Arc<Place>) -> Link {
        Link {
            place: Arc::clone(place),
            table: None,
            connections: 0,
            wait: FIRST_WAIT,
            until: None,
            failures: 0,
        }
    }

    /// Where it leads.
    pub fn place(&self) -> &Place {
        &self.place
    }

    /// How often it was connected to: what was known of open transactions holds for one connection.
    pub fn connections(&self) -> u64 {
        self.connections
    }

    /// Asks something; nothing if the database is away, which has been said then.
    ///
    /// # Errors
    /// When it refuses for a reason that does not pass.
    pub fn ask<T>(
        &mut self,
        ask: impl FnOnce(&mut dyn Table) -> Result<T, ConnectorError>,
    ) -> Result<Option<T>, ConnectorError> {
        if self.away().is_some() {
            return Ok(None);
        }
        match self.connected().and_then(|mut table| {
            let answer = ask(&mut *table)?;
            self.table = Some(table);
            Ok(answer)
        }) {
            Ok(answer) => {
                if self.failures > 0 {
                    tracing::info!("{} answers again", self.place.describe());
                }
                (self.wait, self.until, self.failures) = (FIRST_WAIT, None, 0);
                Ok(Some(answer))
            }
            Err(error) if error.blame != Blame::Outage => Err(error),
            Err(error) => {
                self.failures += 1;
                self.until = Some(Instant::now() + self.wait);
                tracing::warn!("{error}; trying again in {:?} (failure {})", self.wait, self.failures);
                self.wait = (self.wait * 2).min(LONGEST_WAIT);
                Ok(None)
            }
        }
    }

    /// As [`Link::ask`], for a job that begins: waits for a database that is away for a while.
    pub fn ask_patiently<T>(
        &mut self,
        ask: impl Fn(&mut dyn Table) -> Result<T, ConnectorError>,
    ) -> Result<T, ConnectorError> {
        let patience = Instant::now() + PATIENCE;
        loop {
            if let Some(answer) = self.ask(&ask)? {
                return Ok(answer);
            }
            if Instant::now() >= patience {
                return Err(self.place.outage(format!("it has not answered in {PATIENCE:?}")));
            }
            self.pause(PATIENCE);
        }
    }

    /// Waits until the database is to be tried again, or for `most`.
    pub fn pause(&self, most: Duration) {
        if let Some(left) = self.away() {
            std::thread::park_timeout(left.min(most));
        }
    }

    /// How long the database is not to be tried yet.
    fn away(&self) -> Option<Duration> {
        self.until?.checked_duration_since(Instant::now()).filter(|left| !left.is_zero())
    }

    fn connected(&mut self) -> Result<Box<dyn Table>, ConnectorError> {
        if let Some(table) = self.table.take() {
            return Ok(table);
        }
        let table = self.place.connect()?;
        self.connections += 1;
        Ok(table)
    }
}
