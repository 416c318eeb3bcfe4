//! A disk that writes in pieces, is full, or cannot sync.

use std::io;
use std::os::unix::process::ExitStatusExt;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex};

use super::*;

/// The real disk with faults switched on and off.
#[derive(Clone, Debug, Default)]
pub(super) struct Faulty(Arc<Faults>);

/// The real disk, which takes only so many bytes a call: a kill between two tears a frame.
pub(super) fn in_pieces(bytes: usize) -> Faulty {
    let disk = Faulty::default();
    disk.0.piece.store(bytes, Ordering::SeqCst);
    disk
}

#[derive(Debug)]
struct Faults {
    /// The most that one call writes.
    piece: AtomicUsize,
    /// How many bytes the disk still takes.
    room: AtomicU64,
    sync_fails: AtomicBool,
    cut_fails: AtomicBool,
    sync_failures: AtomicUsize,
    syncs: AtomicUsize,
    gate: Mutex<Gate>,
    moved: Condvar,
}

#[derive(Debug, Default)]
struct Gate {
    closed: bool,
    waiting: bool,
}

impl Default for Faults {
    fn default() -> Self {
        Faults {
            piece: AtomicUsize::new(usize::MAX),
            room: AtomicU64::new(u64::MAX),
            sync_fails: AtomicBool::new(false),
            cut_fails: AtomicBool::new(false),
            sync_failures: AtomicUsize::new(0),
            syncs: AtomicUsize::new(0),
            gate: Mutex::default(),
            moved: Condvar::new(),
        }
    }
}

#[derive(Debug)]
struct FaultyFile(Box<dyn StoredFile>, Arc<Faults>);

impl Storage for Faulty {
    fn create(&self, path: &Path) -> io::Result<Box<dyn StoredFile>> {
        Ok(Box::new(FaultyFile(Disk.create(path)?, Arc::clone(&self.0))))
    }
    fn open(&self, path: &Path) -> io::Result<Box<dyn StoredFile>> {
        Ok(Box::new(FaultyFile(Disk.open(path)?, Arc::clone(&self.0))))
    }
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        Disk.rename(from, to)
    }
    fn link(&self, from: &Path, to: &Path) -> io::Result<()> {
        Disk.link(from, to)
    }
    fn remove(&self, path: &Path) -> io::Result<()> {
        Disk.remove(path)
    }
    fn sync_folder(&self, folder: &Path) -> io::Result<()> {
        Disk.sync_folder(folder)
    }
    fn sync_failed(&self, _path: &Path, _error: &io::Error) {
        self.0.sync_failures.fetch_add(1, Ordering::SeqCst);
    }
}

impl StoredFile for FaultyFile {
    fn write_at(&self, bytes: &[u8], position: u64) -> io::Result<usize> {
        let room = self.1.room.load(Ordering::SeqCst);
        let length =
            bytes.len().min(self.1.piece.load(Ordering::SeqCst)).min(room.try_into().unwrap_or(usize::MAX));
        if length == 0 {
            return Err(io::ErrorKind::StorageFull.into());
        }
        if room != u64::MAX {
            self.1.room.store(room - length as u64, Ordering::SeqCst);
        }
        self.0.write_at(&bytes[..length], position)
    }
    fn sync(&self) -> io::Result<()> {
        let mut gate = self.1.gate.lock().unwrap();
        while gate.closed {
            gate.waiting = true;
            self.1.moved.notify_all();
            gate = self.1.moved.wait(gate).unwrap();
        }
        drop(gate);
        self.1.syncs.fetch_add(1, Ordering::SeqCst);
        if self.1.sync_fails.load(Ordering::SeqCst) {
            return Err(io::Error::other("the disk is gone"));
        }
        self.0.sync()
    }
    fn set_len(&self, length: u64) -> io::Result<()> {
        if self.1.cut_fails.load(Ordering::SeqCst) {
            return Err(io::Error::other("no"));
        }
        self.0.set_len(length)
    }
}

fn on(disk: &Faulty, sync: SyncPolicy) -> WriterOptions {
    WriterOptions { sync, storage: Arc::new(disk.clone()) }
}

#[test]
fn writes_in_pieces_make_whole_frames() {
    let (_folder, topic) = new_topic(small_segments(MIN_SEGMENT_BYTES));
    let disk = in_pieces(7);
    let writer = topic.writer(0, on(&disk, SyncPolicy::EveryAppend)).unwrap();
    for byte in 0..20 {
        writer.append(&[value(&[byte; 500])]).unwrap();
    }
    assert_eq!(values(&topic).unwrap(), (0..20).map(|byte| vec![byte; 500]).collect::<Vec<_>>());
}

#[test]
fn a_full_disk_refuses_the_append_and_keeps_the_rest() {
    // At every amount of room that is left: within a frame, within the header of the next segment.
    for room in (0..100).chain((100..3000).step_by(41)) {
        let (_folder, topic) = new_topic(small_segments(MIN_SEGMENT_BYTES));
        let disk = Faulty::default();
        let writer = topic.writer(0, on(&disk, SyncPolicy::Never)).unwrap();
        for byte in 0..3 {
            writer.append(&[value(&[byte; 1000])]).unwrap();
        }
        disk.0.room.store(room, Ordering::SeqCst);
        let mut kept: Vec<Vec<u8>> = (0..3).map(|byte| vec![byte; 1000]).collect();
        let error = loop {
            let next = kept.len() as u8;
            match writer.append(&[value(&[next; 1000])]) {
                Ok(_) => kept.push(vec![next; 1000]),
                Err(error) => break error,
            }
        };
        assert!(error.is_retryable(), "{error}");
        assert_eq!(values(&topic).unwrap(), kept, "room {room}");
        disk.0.room.store(u64::MAX, Ordering::SeqCst);
        let last = vec![9; 10];
        assert_eq!(writer.append(&[value(&last)]).unwrap().first, kept.len() as u64);
        kept.push(last);
        assert_eq!(values(&topic).unwrap(), kept, "room {room}");
        drop(writer);
        assert!(topic.writer(0, never()).unwrap().recovery().is_none(), "room {room}");
        assert_eq!(topic.verify(0).unwrap().next, kept.len() as u64);
    }
}

#[test]
fn a_failed_append_that_cannot_be_undone_stops_the_writer() {
    let (_folder, topic) = new_topic(TopicConfig::default());
    let disk = Faulty::default();
    let writer = topic.writer(0, on(&disk, SyncPolicy::Never)).unwrap();
    writer.append(&[value(b"kept")]).unwrap();
    disk.0.room.store(20, Ordering::SeqCst);
    disk.0.cut_fails.store(true, Ordering::SeqCst);
    assert!(matches!(writer.append(&[value(b"lost")]), Err(LogError::Append { .. })));
    disk.0.room.store(u64::MAX, Ordering::SeqCst);
    assert!(matches!(writer.append(&[value(b"no")]), Err(LogError::WriterStopped { .. })));
    drop(writer);
    assert!(topic.writer(0, never()).unwrap().recovery().is_some_and(|cut| cut.truncated_bytes == 20));
    assert_eq!(values(&topic).unwrap(), [b"kept"]);
}

#[test]
fn after_a_failed_sync_nothing_is_acknowledged() {
    for policy in [SyncPolicy::EveryAppend, SyncPolicy::Interval(Duration::ZERO), SyncPolicy::Never] {
        let (_folder, topic) = new_topic(TopicConfig::default());
        let disk = Faulty::default();
        let writer = topic.writer(0, on(&disk, policy)).unwrap();
        writer.append_durable(&[value(b"good")]).unwrap();
        disk.0.sync_fails.store(true, Ordering::SeqCst);
        assert!(writer.append_durable(&[value(b"bad")]).is_err());
        disk.0.sync_fails.store(false, Ordering::SeqCst);
        assert!(
            matches!(writer.append(&[value(b"worse")]), Err(LogError::WriterStopped { .. })),
            "{policy:?}"
        );
        assert!(matches!(writer.sync(), Err(LogError::WriterStopped { .. })), "{policy:?}");
        let (told, tell) = std::sync::mpsc::channel();
        writer.when_durable(2, move |outcome| told.send(outcome.is_err()).unwrap());
        assert!(tell.recv_timeout(PATIENCE).unwrap());
        writer.wait_durable(1).unwrap();
        assert_eq!((disk.0.sync_failures.load(Ordering::SeqCst), writer.durable()), (1, 1));
    }
}

#[test]
fn a_sync_that_fails_between_segments_stops_the_writer_too() {
    let (_folder, topic) = new_topic(small_segments(MIN_SEGMENT_BYTES));
    let disk = Faulty::default();
    let writer = topic.writer(0, on(&disk, SyncPolicy::Never)).unwrap();
    writer.append(&[value(&[1; 4000])]).unwrap();
    disk.0.sync_fails.store(true, Ordering::SeqCst);
    assert!(writer.append(&[value(&[2; 4000])]).is_err());
    disk.0.sync_fails.store(false, Ordering::SeqCst);
    assert!(matches!(writer.append(&[value(b"no")]), Err(LogError::WriterStopped { .. })));
    assert!(writer.wait_durable(1).is_err());
}

#[test]
fn appends_that_come_during_a_sync_share_the_next_one() {
    let (_folder, topic) = new_topic(TopicConfig::default());
    let disk = Faulty::default();
    let writer = topic.writer(0, on(&disk, SyncPolicy::Interval(Duration::ZERO))).unwrap();
    let before = disk.0.syncs.load(Ordering::SeqCst);
    disk.0.gate.lock().unwrap().closed = true;
    std::thread::scope(|scope| {
        let first = scope.spawn(|| writer.append_durable(&[value(b"0")]).unwrap());
        let mut gate = disk.0.gate.lock().unwrap();
        while !gate.waiting {
            gate = disk.0.moved.wait(gate).unwrap();
        }
        drop(gate);
        let (told, tell) = std::sync::mpsc::channel();
        for _ in 0..20 {
            let appended = writer.append(&[value(b"1")]).unwrap();
            let told = told.clone();
            writer.when_durable(appended.next, move |outcome| {
                told.send(outcome.map(|()| appended.next)).unwrap()
            });
        }
        assert!(tell.try_recv().is_err());
        disk.0.gate.lock().unwrap().closed = false;
        disk.0.moved.notify_all();
        assert_eq!(first.join().unwrap().next, 1);
        writer.wait_durable(21).unwrap();
        let mut acknowledged: Vec<u64> =
            (0..20).map(|_| tell.recv_timeout(PATIENCE).unwrap().unwrap()).collect();
        acknowledged.sort_unstable();
        assert_eq!(acknowledged, (2..22).collect::<Vec<_>>());
    });
    assert_eq!(disk.0.syncs.load(Ordering::SeqCst) - before, 2);
}

#[test]
fn child_whose_sync_fails() {
    if let Some(topic) = in_child() {
        Disk.sync_failed(Path::new(topic.name()), &io::Error::other("gone"));
        println!("still here");
    }
}

#[test]
fn the_real_disk_stops_the_process_when_a_sync_fails() {
    let (folder, _topic) = new_topic(TopicConfig::default());
    let mut child = child("faults::child_whose_sync_fails", folder.path());
    assert_eq!(said(&mut child, "still").next(), None);
    assert_eq!(child.wait().unwrap().signal(), Some(6));
}
