//! Reading a table by its numbers.
//!
//! A page at a time: the settled rows from the last one read on. When all of them are read, the table is looked at again,
//! every `poll`, and sooner while rows are held back. While the database is away the reader gives nothing; what it has
//! read already waits with it.
//!
//! Cost: a query a page, of some megabytes; where nothing comes, one query that the index answers a `poll`.

use std::sync::Arc;
use std::time::{Duration, Instant};

use levada_types::{ConnectorError, Read, RecordReader, SourceLag};

use super::link::Link;
use super::receipts::{Book, Expected};
use super::settle::Settling;
use super::table::Wanted;
use crate::waiting::Waiting;

/// Rows asked for at once, and in the first page, when it is not known how long they are.
const MAX_PAGE: usize = 4096;
const FIRST_PAGE: usize = 256;

/// How many bytes of records a page should have: what a server answers is bounded by the number of rows alone, so the
/// number follows from how long the last ones were.
const PAGE_BYTES: usize = 4 << 20;

/// How soon a table is looked at again whose rows are held back; then each time twice as late, up to `poll`.
const HELD_WAIT: Duration = Duration::from_millis(10);

/// After how long it is said that an open transaction holds rows back.
const HELD_LONG: Duration = Duration::from_secs(10);

/// A table being read.
pub(super) struct TableReader {
    link: Link,
    settling: Settling,
    /// The connection of which `settling` tells.
    connection: u64,
    /// The least number that may come next.
    next: u64,
    waiting: Waiting,
    page: usize,
    book: Option<Book>,
    expected: Expected,
    poll: Duration,
    /// When to look at the table next, and after how long then, while rows are held back.
    due: Instant,
    held_wait: Duration,
    held_told: bool,
    /// Whether it was said that the table ends before what was read of it.
    short_told: bool,
    /// Whether all that was settled when reading began has been read.
    caught_up: bool,
    lag: Lag,
}

/// How far a reader is behind, for people: since when there are rows that it has not given.
struct Lag {
    told: Arc<SourceLag>,
    table: String,
    since: Option<Instant>,
}

/// What was done to get on.
enum Step {
    /// There may be more at once.
    More,
    /// All settled rows have been read.
    End,
    /// The database is out of reach.
    Away,
}

impl TableReader {
    /// A reader from the row `next` on, of a table that is settled so far.
    pub fn new(
        link: Link,
        settling: Settling,
        next: u64,
        receipts: Option<(Book, Expected)>,
        poll: Duration,
        lag: Arc<SourceLag>,
    ) -> TableReader {
        let (book, expected) =
            receipts.map_or((None, Expected::default()), |(book, rows)| (Some(book), rows));
        let table = link.place().config.table.clone();
        TableReader {
            settling,
            connection: link.connections(),
            next,
            waiting: Waiting::default(),
            page: FIRST_PAGE,
            book,
            expected,
            poll,
            due: Instant::now(),
            held_wait: HELD_WAIT,
            held_told: false,
            short_told: false,
            caught_up: false,
            lag: Lag { told: lag, table, since: None },
            link,
        }
    }

    fn step(&mut self, rows: usize) -> Result<Step, ConnectorError> {
        // What was read by an earlier run was settled then.
        let readable = self.settling.settled().max(self.expected.last());
        match readable.filter(|to| *to >= self.next) {
            Some(to) => self.fetch(to, rows),
            None if Instant::now() < self.due => Ok(Step::End),
            None => self.look(),
        }
    }

    /// Reads a page of the rows up to `to`.
    fn fetch(&mut self, to: u64, rows: usize) -> Result<Step, ConnectorError> {
        let wanted = Wanted { from: self.next, to, rows: rows.min(self.page) };
        let Some(page) = self.link.ask(|table| table.page(&wanted))? else { return Ok(Step::Away) };
        let place = self.link.place();
        let column = &place.config.column;
        let before = self.waiting.bytes();
        for (row, record) in &page.rows {
            if *row < self.next {
                return Err(
                    place.damaged(format!("there are two rows with `{column}` {row}, or it does not grow"))
                );
            }
            self.expected.take(*row, record).map_err(|changed| place.damaged(changed.tell(column)))?;
            self.waiting.push(*row, record);
            self.next = row + 1;
        }
        if page.whole {
            self.expected.end(to).map_err(|changed| place.damaged(changed.tell(column)))?;
            self.next = to.saturating_add(1);
        }
        if !page.rows.is_empty() {
            let bytes = (self.waiting.bytes() - before) / page.rows.len();
            self.page = (PAGE_BYTES / bytes.max(1)).clamp(1, MAX_PAGE);
        }
        Ok(Step::More)
    }

    /// Looks how far the table goes and is settled.
    fn look(&mut self) -> Result<Step, ConnectorError> {
        let Some(seen) = self.link.ask(|table| table.seen())? else { return Ok(Step::Away) };
        let now = Instant::now();
        if self.connection != self.link.connections() {
            self.connection = self.link.connections();
            self.settling.reconnected();
        }
        self.ends_before(seen.last);
        let before = self.settling.settled();
        self.settling.look(seen, now);
        if self.settling.settled() > before {
            self.held_wait = HELD_WAIT;
        }
        self.tell_held(now);
        let held = self.settling.held().is_some();
        self.lag.tell(held || self.settling.settled().is_some_and(|to| to >= self.next), now);
        self.due = now + if held { self.held_wait.min(self.poll) } else { self.poll };
        self.held_wait = if held { (self.held_wait * 2).min(self.poll) } else { HELD_WAIT };
        Ok(if self.settling.settled() > before { Step::More } else { Step::End })
    }

    /// Says so, once, when an open transaction holds rows back for long, and when it does so no more.
    fn tell_held(&mut self, now: Instant) {
        let place = self.link.place();
        if let Some(held) = self.settling.held_for(HELD_LONG, now) {
            let writers: Vec<&str> = held.writers.values().map(String::as_str).collect();
            tracing::warn!(
                "{}: rows up to {} are there and held back, for {HELD_LONG:?} by now: a transaction that writes to the table \
                 is open ({}), and may bring one with a smaller number",
                place.describe(),
                held.last,
                writers.join(", ")
            );
            self.held_told = true;
        } else if self.held_told && self.settling.held().is_none() {
            tracing::info!("{}: no row is held back any more", place.describe());
            self.held_told = false;
        }
    }

    /// Says so, once, when the last row has a smaller number than one that was read: so may those that come.
    fn ends_before(&mut self, last: Option<u64>) {
        let short = last.map_or(0, |last| last + 1) < self.next;
        if short && !self.short_told {
            tracing::warn!(
                "{}: it was read up to {}, and ends before that now; rows are read only once they have a greater number (of \
                 SQLite, see AUTOINCREMENT)",
                self.link.place().describe(),
                self.next - 1
            );
        }
        self.short_told = short;
    }

    /// Gives what waits, once it is written down.
    fn give(&mut self, max_records: usize) -> Result<Read, ConnectorError> {
        let records = self.waiting.take(max_records);
        if let Some(book) = &mut self.book {
            book.write(&records)?;
        }
        Ok(Read::Records(records))
    }

    /// Waits for the next look, or until `until`; whether it is time to look.
    fn rest(&self, until: Instant) -> bool {
        let left = until.min(self.due).saturating_duration_since(Instant::now());
        if !left.is_zero() {
            std::thread::park_timeout(left);
        }
        self.due <= Instant::now()
    }

    /// What a read says that finds nothing.
    fn nothing(&mut self) -> Read {
        // Rows that are held back are there, so the table is not silent; but they are no part of the history.
        if self.caught_up && self.settling.held().is_some() {
            return Read::Nothing;
        }
        self.caught_up = true;
        Read::CaughtUp
    }
}

impl RecordReader for TableReader {
    fn read(&mut self, max_records: usize, wait: Duration) -> Result<Read, ConnectorError> {
        let until = Instant::now() + wait;
        loop {
            if self.waiting.fills(max_records) {
                return self.give(max_records);
            }
            match self.step(max_records - self.waiting.len())? {
                Step::More => {}
                Step::End if !self.waiting.is_empty() => return self.give(max_records),
                Step::End => {
                    if !self.rest(until) || Instant::now() >= until {
                        return Ok(self.nothing());
                    }
                }
                Step::Away => {
                    self.lag.tell(true, Instant::now());
                    self.link.pause(until.saturating_duration_since(Instant::now()));
                    return Ok(Read::Nothing);
                }
            }
        }
    }
}

impl Lag {
    /// Tells whether there are rows that were not given, or may be.
    fn tell(&mut self, behind: bool, now: Instant) {
        self.since = behind.then(|| self.since.unwrap_or(now));
        let ms = self.since.map_or(0, |since| now.duration_since(since).as_millis());
        self.told.set(&self.table, Some(u64::try_from(ms).unwrap_or(u64::MAX)));
    }
}
