//! How readers learn that a partition grew, without sleeping or polling.
//!
//! ```text
//!  Writer (this process) ───append──────────────────► Signal of the partition ──► Reader::wait (condvar)
//!  Writer (another one) ──► inotify ──► watch thread ─┘                       └─► wakers (gateway, feeder)
//! ```
//!
//! A partition has one [`Signal`] in a process, found by its folder. While its writer is in this process,
//! the writer touches the signal itself; otherwise one thread of the process, started when first needed,
//! reads inotify for all partitions and touches their signals. A touch says "look again", never what is
//! there: bursts may coalesce, and a touch may be for nothing.

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant};

use rustix::fs::inotify::{self, CreateFlags, ReadFlags, WatchFlags};

use super::error::{LogError, Result};
use super::topic::Bounds;

type Waker = Arc<dyn Fn() + Send + Sync>;

/// The signals of this process by partition folder: how a writer and the readers beside it meet.
static SIGNALS: Mutex<BTreeMap<PathBuf, Weak<Signal>>> = Mutex::new(BTreeMap::new());
static WATCHER: Mutex<Option<Watcher>> = Mutex::new(None);

/// Locks, whatever happened to a thread that held it: what is behind these locks is never half changed.
pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Tells whoever listens to a partition to look again.
pub(super) struct Signal {
    folder: PathBuf,
    generation: AtomicU64,
    waiting: AtomicUsize,
    gate: Mutex<()>,
    changed: Condvar,
    wakers: Mutex<Arc<[(u64, Waker)]>>,
    waker_count: AtomicUsize,
    waker_ids: AtomicU64,
    written_here: AtomicBool,
    first: AtomicU64,
    next: AtomicU64,
    watch: Mutex<Option<i32>>,
}

impl fmt::Debug for Signal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Signal").field("folder", &self.folder).finish_non_exhaustive()
    }
}

impl Signal {
    /// The signal of a partition in this process. The folder must be canonical.
    pub fn of(folder: &Path) -> Arc<Signal> {
        let mut signals = lock(&SIGNALS);
        if let Some(signal) = signals.get(folder).and_then(Weak::upgrade) {
            return signal;
        }
        let signal = Arc::new(Signal {
            folder: folder.to_owned(),
            generation: AtomicU64::new(0),
            waiting: AtomicUsize::new(0),
            gate: Mutex::new(()),
            changed: Condvar::new(),
            wakers: Mutex::new(Arc::from([])),
            waker_count: AtomicUsize::new(0),
            waker_ids: AtomicU64::new(0),
            written_here: AtomicBool::new(false),
            first: AtomicU64::new(0),
            next: AtomicU64::new(0),
            watch: Mutex::new(None),
        });
        signals.retain(|_, signal| signal.strong_count() > 0);
        signals.insert(folder.to_owned(), Arc::downgrade(&signal));
        signal
    }

    /// Changes with every touch. To be read before looking, and given to [`Signal::wait`] after.
    pub fn generation(&self) -> u64 {
        self.generation.load(Ordering::SeqCst)
    }

    /// Says "look again" to everybody.
    pub fn touch(&self) {
        self.generation.fetch_add(1, Ordering::SeqCst);
        if self.waiting.load(Ordering::SeqCst) > 0 {
            // Whoever is between its look at the generation and its wait holds the gate.
            drop(lock(&self.gate));
            self.changed.notify_all();
        }
        if self.waker_count.load(Ordering::SeqCst) > 0 {
            let wakers = Arc::clone(&lock(&self.wakers));
            for (_, waker) in wakers.iter() {
                waker();
            }
        }
    }

    /// Returns true once there was a touch since the generation was `seen`, false after `timeout`.
    pub fn wait(self: &Arc<Self>, seen: u64, timeout: Duration) -> Result<bool> {
        if self.ensure_heard()? {
            return Ok(true);
        }
        let deadline = Instant::now().checked_add(timeout);
        self.waiting.fetch_add(1, Ordering::SeqCst);
        let mut gate = lock(&self.gate);
        let changed = loop {
            if self.generation() != seen {
                break true;
            }
            let left =
                deadline.map_or(Duration::MAX, |deadline| deadline.saturating_duration_since(Instant::now()));
            if left.is_zero() {
                break false;
            }
            gate = self.changed.wait_timeout(gate, left).unwrap_or_else(PoisonError::into_inner).0;
        };
        drop(gate);
        self.waiting.fetch_sub(1, Ordering::SeqCst);
        Ok(changed)
    }

    /// Calls `waker` at every touch for as long as the subscription is kept.
    pub fn subscribe(self: &Arc<Self>, waker: Waker) -> Result<Subscription> {
        let id = self.waker_ids.fetch_add(1, Ordering::SeqCst);
        self.change_wakers(|wakers| wakers.push((id, waker)));
        let subscription = Subscription { signal: Arc::clone(self), id };
        self.ensure_heard()?;
        Ok(subscription)
    }

    fn change_wakers(&self, change: impl FnOnce(&mut Vec<(u64, Waker)>)) {
        let mut wakers = lock(&self.wakers);
        let mut changed = wakers.to_vec();
        change(&mut changed);
        self.waker_count.store(changed.len(), Ordering::SeqCst);
        *wakers = changed.into();
    }

    /// The writer of the partition is in this process from now on.
    pub fn attach_writer(self: &Arc<Self>, bounds: Bounds) {
        self.publish(bounds);
        self.written_here.store(true, Ordering::SeqCst);
        if let Some(watch) = lock(&self.watch).take() {
            unwatch(watch, self);
        }
        self.touch();
    }

    /// It no longer is: the next one may be in another process.
    pub fn detach_writer(self: &Arc<Self>) {
        self.written_here.store(false, Ordering::SeqCst);
        if self.waker_count.load(Ordering::SeqCst) > 0
            && let Err(error) = self.ensure_heard()
        {
            tracing::warn!(%error, "subscribers of this partition will not hear of further records");
        }
        self.touch();
    }

    /// What the writer in this process has made visible; [`Signal::touch`] follows.
    pub fn publish(&self, bounds: Bounds) {
        self.first.store(bounds.first, Ordering::SeqCst);
        self.next.store(bounds.next, Ordering::SeqCst);
    }

    /// What the partition holds, if its writer is in this process.
    pub fn bounds(&self) -> Option<Bounds> {
        let bounds =
            Bounds { first: self.first.load(Ordering::SeqCst), next: self.next.load(Ordering::SeqCst) };
        self.written_here.load(Ordering::SeqCst).then_some(bounds)
    }

    /// Makes sure that appends of any process reach this signal. True when they did not before, so
    /// that some may have been missed.
    fn ensure_heard(self: &Arc<Self>) -> Result<bool> {
        if self.written_here.load(Ordering::SeqCst) {
            return Ok(false);
        }
        let mut watch = lock(&self.watch);
        if watch.is_some() {
            return Ok(false);
        }
        *watch =
            Some(begin_watch(self).map_err(|source| LogError::Watch { path: self.folder.clone(), source })?);
        Ok(true)
    }
}

impl Drop for Signal {
    fn drop(&mut self) {
        if let Some(watch) = lock(&self.watch).take() {
            unwatch(watch, self);
        }
    }
}

/// Keeps a waker registered; dropping it ends the calls (one that is running may still finish).
#[derive(Debug)]
#[must_use = "dropping the subscription ends it"]
pub struct Subscription {
    signal: Arc<Signal>,
    id: u64,
}

impl Drop for Subscription {
    fn drop(&mut self) {
        self.signal.change_wakers(|wakers| wakers.retain(|(id, _)| *id != self.id));
    }
}

/// inotify for all partitions of the process.
struct Watcher {
    inotify: Arc<OwnedFd>,
    signals: HashMap<i32, Weak<Signal>>,
}

fn begin_watch(signal: &Arc<Signal>) -> io::Result<i32> {
    let mut watcher = lock(&WATCHER);
    let watcher = match &mut *watcher {
        Some(watcher) => watcher,
        none => {
            let inotify = Arc::new(inotify::init(CreateFlags::CLOEXEC)?);
            let events = Arc::clone(&inotify);
            std::thread::Builder::new().name("levada-log-watch".to_owned()).spawn(move || watch(&events))?;
            none.insert(Watcher { inotify, signals: HashMap::new() })
        }
    };
    let flags = WatchFlags::MODIFY
        | WatchFlags::CREATE
        | WatchFlags::MOVED_TO
        | WatchFlags::DELETE
        | WatchFlags::DELETE_SELF
        | WatchFlags::MOVE_SELF;
    let id = inotify::add_watch(&*watcher.inotify, &signal.folder, flags)?;
    watcher.signals.insert(id, Arc::downgrade(signal));
    Ok(id)
}

/// Ends a watch, unless a newer signal of the same folder has taken it over.
fn unwatch(id: i32, signal: &Signal) {
    let mut watcher = lock(&WATCHER);
    let Some(watcher) = &mut *watcher else { return };
    if watcher.signals.get(&id).is_some_and(|held| std::ptr::eq(held.as_ptr(), signal)) {
        watcher.signals.remove(&id);
        // It fails when the folder is gone, and then the watch is gone too.
        let _ = inotify::remove_watch(&*watcher.inotify, id);
    }
}

/// The watch thread: runs as long as the process.
fn watch(events: &OwnedFd) {
    let mut buffer = [MaybeUninit::uninit(); 16 << 10];
    let mut reader = inotify::Reader::new(events, &mut buffer);
    loop {
        let (id, all) = match reader.next() {
            Ok(event) => {
                // The index grows beside its segment, and the lock file changes hands: no news.
                if event.file_name().is_some_and(|name| !name.to_bytes().ends_with(b".log")) {
                    continue;
                }
                (event.wd(), event.events().contains(ReadFlags::QUEUE_OVERFLOW))
            }
            Err(rustix::io::Errno::INTR) => continue,
            Err(error) => {
                tracing::error!(%error, "watching the log's folders ended: other processes' appends go unnoticed");
                return;
            }
        };
        let touched: Vec<Arc<Signal>> = match &*lock(&WATCHER) {
            Some(watcher) if all => watcher.signals.values().filter_map(Weak::upgrade).collect(),
            Some(watcher) => watcher.signals.get(&id).and_then(Weak::upgrade).into_iter().collect(),
            None => Vec::new(),
        };
        for signal in touched {
            signal.touch();
        }
    }
}
