//! Writing a topic of Kafka: the thread that publishes.
//!
//! All epochs that came while the last transaction was being committed go into the next one, so that a slow
//! broker makes larger transactions and not a longer queue.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

use crossbeam_channel::{Receiver, Sender, bounded};
use levada_types::{ConnectorError, Existing, WhenDurable};

use super::Delivery;
use super::client::Connection;
use super::writing::{Waiting, Writing};
use crate::published::Rows;

/// How many epochs wait at most; then whoever publishes waits too.
pub const QUEUED_EPOCHS: usize = 64;
/// How large a transaction grows by taking in what waits; a single epoch may be larger.
const GROUP_BYTES: usize = 8 << 20;

/// How a topic is written.
pub(super) struct PublisherSettings {
    pub delivery: Delivery,
    pub transactional_id: String,
    pub partitions: u32,
    pub existing: Existing,
}

enum Order {
    Epoch(Waiting),
    Durable(WhenDurable),
}

/// The worker's end of the thread.
pub(super) struct Publisher {
    orders: Option<Sender<Order>>,
    thread: Option<JoinHandle<()>>,
    failure: Arc<Mutex<Option<ConnectorError>>>,
    abandoned: Arc<AtomicBool>,
}

impl Publisher {
    /// Takes the topic over, and finds out what has been published.
    pub fn start(
        connection: Arc<Connection>,
        settings: PublisherSettings,
    ) -> Result<Publisher, ConnectorError> {
        let abandoned = Arc::new(AtomicBool::new(false));
        let ended = Arc::clone(&abandoned);
        let writing = Writing::open(connection, settings, Arc::new(move || ended.load(Relaxed)))?;
        let (orders, waiting) = bounded(QUEUED_EPOCHS);
        let failure = Arc::new(Mutex::new(None));
        let told = Arc::clone(&failure);
        let thread = std::thread::Builder::new().name("kafka publisher".into()).spawn(move || {
            if let Err(error) = serve(writing, &waiting) {
                *told.lock().unwrap_or_else(PoisonError::into_inner) = Some(error.clone());
                for order in waiting.try_iter() {
                    if let Order::Durable(then) = order {
                        then(Err(error.clone()));
                    }
                }
            }
        });
        let thread = thread.map_err(|error| ConnectorError::outage(format!("start a thread: {error}")))?;
        Ok(Publisher { orders: Some(orders), thread: Some(thread), failure, abandoned })
    }

    /// Waits while too many epochs wait.
    pub fn publish(&self, epoch: u64, turn: u64, rows: Rows) -> Result<(), ConnectorError> {
        match &self.orders {
            Some(orders) => {
                orders.send(Order::Epoch(Waiting { epoch, turn, rows })).map_err(|_| self.reason())
            }
            None => Err(self.reason()),
        }
    }

    pub fn when_durable(&self, then: WhenDurable) {
        let order = Order::Durable(then);
        let refused = match &self.orders {
            Some(orders) => orders.send(order).err().map(|refused| refused.0),
            None => Some(order),
        };
        if let Some(Order::Durable(then)) = refused {
            then(Err(self.reason()));
        }
    }

    pub fn check(&self) -> Result<(), ConnectorError> {
        match &*self.failure.lock().unwrap_or_else(PoisonError::into_inner) {
            None => Ok(()),
            Some(error) => Err(error.clone()),
        }
    }

    /// Waits until all is published.
    pub fn close(&mut self) -> Result<(), ConnectorError> {
        self.orders = None;
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            return Err(self.reason());
        }
        self.check()
    }

    /// Why nothing can be published any more.
    fn reason(&self) -> ConnectorError {
        match self.check() {
            Err(error) => error,
            Ok(()) => ConnectorError::outage("publish: it is closed already"),
        }
    }
}

impl Drop for Publisher {
    /// The job failed, or the sink is closed and there is nothing to wait for.
    fn drop(&mut self) {
        self.abandoned.store(true, Relaxed);
    }
}

/// Publishes what comes until nothing will.
fn serve(mut writing: Writing, orders: &Receiver<Order>) -> Result<(), ConnectorError> {
    while let Ok(first) = orders.recv() {
        if writing.has_ended() {
            break;
        }
        let (mut group, mut told, mut bytes) = (VecDeque::new(), Vec::new(), 0);
        let mut next = Some(first);
        while let Some(order) = next {
            match order {
                Order::Epoch(waiting) => {
                    bytes += waiting.rows.bytes();
                    group.push_back(waiting);
                }
                Order::Durable(then) => told.push(then),
            }
            next = if bytes < GROUP_BYTES { orders.try_recv().ok() } else { None };
        }
        let done = writing.publish(group);
        for then in told {
            then(done.clone());
        }
        done?;
    }
    Ok(())
}
