use std::fs::File;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::time::SystemTime;

use bytes::Bytes;
use tempfile::TempDir;

use super::*;
use crate::log::StoredFile;

fn names(store: &FolderStore) -> Vec<String> {
    store.list().unwrap()
}

#[test]
fn a_file_is_there_whole_or_not_at_all() {
    let folder = TempDir::new().unwrap();
    let store = FolderStore::new(folder.path().join("not/there/yet"));
    assert_eq!(names(&store), [""; 0]);
    assert_eq!(store.get("a-1").unwrap(), None);
    store.put("b", &[Bytes::from_static(b"two")]).unwrap();
    store.put("a-1", &[Bytes::from_static(b"one")]).unwrap();
    store.put("a-1", &[Bytes::from_static(b"another")]).unwrap();
    assert_eq!(names(&store), ["a-1", "b"]);
    assert_eq!(store.get("a-1").unwrap().unwrap(), b"another");
    store.delete("a-1").unwrap();
    store.delete("a-1").unwrap();
    assert_eq!(names(&store), ["b"]);
}

#[test]
fn of_those_that_create_one_name_one_gets_it() {
    let folder = TempDir::new().unwrap();
    let store = FolderStore::new(folder.path().join("not/there/yet"));
    let create =
        |value: &'static str| store.create("run-1", &[Bytes::from_static(value.as_bytes())]).unwrap();
    assert_eq!([create("first"), create("second")], [true, false]);
    assert_eq!(store.get("run-1").unwrap().unwrap(), b"first");
    let (start, got) = (std::sync::Barrier::new(8), AtomicUsize::new(0));
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                start.wait();
                got.fetch_add(usize::from(store.create("run-2", &[]).unwrap()), SeqCst);
            });
        }
    });
    assert_eq!(got.into_inner(), 1);
}

#[test]
fn what_a_dead_writer_left_is_no_file_and_goes_in_time() {
    let folder = TempDir::new().unwrap();
    let store = FolderStore::new(folder.path());
    let (old, new) = (folder.path().join("x.1.tmp"), folder.path().join("y.2.tmp"));
    std::fs::write(&new, b"half").unwrap();
    File::create(&old).unwrap().set_modified(SystemTime::now() - 2 * LEFT_BEHIND).unwrap();
    assert_eq!(names(&store), [""; 0]);
    assert!(new.exists() && !old.exists());
}

#[test]
fn a_name_is_no_path() {
    let store = FolderStore::new("/nowhere");
    for name in ["", "..", "../x", "a/b", ".hidden", "x.1.tmp", "ü"] {
        let error = store.put(name, &[Bytes::from_static(b"")]).unwrap_err();
        assert_eq!(error.blame, Blame::Configuration, "{name}");
        assert!(store.get(name).is_err() && store.delete(name).is_err());
    }
}

/// A disk of which a call fails: the first is creating a file, then each write and each sync.
#[derive(Debug)]
struct Failing(Arc<AtomicUsize>);

#[derive(Debug)]
struct FailingFile(File, Arc<AtomicUsize>);

fn turn(left: &AtomicUsize, code: i32) -> io::Result<()> {
    match left.fetch_update(SeqCst, SeqCst, |left| left.checked_sub(1)) {
        Ok(1) => Err(io::Error::from_raw_os_error(code)),
        _ => Ok(()),
    }
}

/// As the operating system numbers them.
const NO_SPACE: i32 = 28;
const IO_ERROR: i32 = 5;
const READ_ONLY: i32 = 30;

impl Storage for Failing {
    fn create(&self, path: &Path) -> io::Result<Box<dyn StoredFile>> {
        turn(&self.0, READ_ONLY)?;
        Ok(Box::new(FailingFile(File::create(path)?, Arc::clone(&self.0))))
    }
    fn open(&self, path: &Path) -> io::Result<Box<dyn StoredFile>> {
        Disk.open(path)
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
    fn sync_failed(&self, _: &Path, _: &io::Error) {}
}

impl StoredFile for FailingFile {
    fn write_at(&self, bytes: &[u8], position: u64) -> io::Result<usize> {
        // Torn: the half is written.
        let half = bytes.len().div_ceil(2);
        let written = StoredFile::write_at(&self.0, &bytes[..half], position)?;
        turn(&self.1, NO_SPACE)?;
        Ok(written)
    }
    fn sync(&self) -> io::Result<()> {
        turn(&self.1, IO_ERROR)
    }
    fn set_len(&self, length: u64) -> io::Result<()> {
        self.0.set_len(length)
    }
}

#[test]
fn a_disk_that_fails_leaves_the_file_of_before() {
    let folder = TempDir::new().unwrap();
    FolderStore::new(folder.path()).put("state", &[Bytes::from_static(b"of before")]).unwrap();
    let mut said = Vec::new();
    for call in 1..20 {
        let left = Arc::new(AtomicUsize::new(call));
        let store = FolderStore::new(folder.path()).on(Arc::new(Failing(left)));
        match store.put("state", &[Bytes::from_static(b"of now and long")]) {
            Ok(()) => break,
            Err(error) => {
                let place = folder.path().join("state").display().to_string();
                said.push(error.to_string().replace(&place, "X"));
                assert_eq!(store.get("state").unwrap().unwrap(), b"of before", "call {call}");
                assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1, "call {call}");
            }
        }
    }
    assert_eq!(FolderStore::new(folder.path()).get("state").unwrap().unwrap(), b"of now and long");
    assert_eq!(said.first().unwrap(), "failed to write X: Read-only file system (os error 30)");
    assert!(said[1..said.len() - 1].iter().all(|error| error.contains("No space left on device")));
    assert_eq!(said.last().unwrap(), "failed to write X: Input/output error (os error 5)");
    assert!(said.len() > 4, "{said:?}");
}
