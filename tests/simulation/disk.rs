//! A disk that loses power.
//!
//! It is the real one, but a sync does nothing except that it is remembered: what a program may rely on is what
//! was synced, and what a power cut leaves beyond that is decided by dice. A call at which the power goes is done
//! half; from then on every call fails. [`PowerCut::settle`] then makes of the files what could stand on a disk:
//! of what was written and not synced any first part, or zeros in its place; of names that were given or taken in
//! a folder that was not synced since, all up to any one.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard};

use levada_connectors::log::{Storage, StoredFile};

/// Random numbers that a seed decides.
#[derive(Clone, Debug)]
pub struct Dice(pub u64);

impl Dice {
    pub fn below(&mut self, end: u64) -> u64 {
        // SplitMix64.
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) % end.max(1)
    }

    pub fn one_of<T: Clone>(&mut self, things: &[T]) -> T {
        things[self.below(things.len() as u64) as usize].clone()
    }
}

/// What is asked of the disk, and for what: `("manifest", "rename")`.
pub type Step = (&'static str, &'static str);

/// The disk until the power goes.
#[derive(Clone, Debug)]
pub struct PowerCut(Arc<Mutex<State>>);

#[derive(Debug)]
struct State {
    dice: Dice,
    /// The power goes at this step, when it is asked for so many times more.
    at: Option<(Step, u64)>,
    gone: bool,
    steps: BTreeMap<Step, u64>,
    /// The files that were opened, by inode.
    files: BTreeMap<u64, Known>,
    /// By folder, what a sync of it would make sure, in order.
    names: BTreeMap<PathBuf, Vec<Name>>,
}

#[derive(Debug)]
struct Known {
    path: PathBuf,
    /// How many bytes of it are on the disk for certain.
    sure: u64,
}

/// A change of a folder that its next sync makes sure.
#[derive(Debug)]
enum Name {
    Created(PathBuf),
    /// With what had the new name before.
    Renamed(PathBuf, PathBuf, Option<Vec<u8>>),
    Linked(PathBuf, PathBuf),
    Removed(PathBuf, Vec<u8>),
}

#[derive(Debug)]
struct Handle {
    disk: PowerCut,
    file: File,
    inode: u64,
}

/// What a path is for.
fn purpose(path: &Path) -> &'static str {
    let text = path.to_string_lossy();
    match () {
        () if text.ends_with(".index") => "index",
        () if text.contains("/checkpoints/checkpoint-") => "manifest",
        () if text.contains("/checkpoints/run-") => "run",
        () if text.contains("/checkpoints") => "state",
        () if text.contains("/journal") => "journal",
        () => "sink",
    }
}

impl PowerCut {
    /// The power goes with the `times`th of such a step, from 1; never without one.
    pub fn new(seed: u64, at: Option<(Step, u64)>) -> PowerCut {
        PowerCut(Arc::new(Mutex::new(State {
            dice: Dice(seed),
            at,
            gone: false,
            steps: BTreeMap::new(),
            files: BTreeMap::new(),
            names: BTreeMap::new(),
        })))
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap()
    }

    /// Whether it has gone.
    pub fn gone(&self) -> bool {
        self.lock().gone
    }

    /// How often each step was asked for.
    pub fn steps(&self) -> BTreeMap<Step, u64> {
        self.lock().steps.clone()
    }

    /// Makes of the files what stands on the disk when the power is back. Nothing may write them any more.
    pub fn settle(&self) {
        let mut state = self.lock();
        let State { dice, files, names, .. } = &mut *state;
        for changes in std::mem::take(names).into_values() {
            let kept = dice.below(changes.len() as u64 + 1) as usize;
            for change in changes.into_iter().skip(kept).rev() {
                match change {
                    Name::Created(path) => {
                        let _ = fs::remove_file(&path);
                        files.retain(|_, file| file.path != path);
                    }
                    Name::Renamed(from, to, before) => {
                        if to.exists() {
                            fs::rename(&to, &from).unwrap();
                        }
                        move_known(files, &to, &from);
                        if let Some(before) = before {
                            fs::write(&to, before).unwrap();
                        }
                    }
                    Name::Linked(from, to) => {
                        fs::remove_file(&to).unwrap();
                        move_known(files, &to, &from);
                    }
                    Name::Removed(path, held) => fs::write(&path, held).unwrap(),
                }
            }
        }
        for Known { path, sure } in std::mem::take(files).into_values() {
            let Ok(file) = OpenOptions::new().write(true).open(&path) else { continue };
            let written = file.metadata().unwrap().len();
            if written <= sure {
                continue;
            }
            let kept = sure + dice.below(written - sure + 1);
            match dice.below(3) {
                // The length got there, the bytes did not.
                0 => {
                    let zeros = vec![0; (written - kept) as usize];
                    FileExt::write_all_at(&file, &zeros, kept).unwrap();
                }
                1 => file.set_len(kept).unwrap(),
                _ => {}
            }
        }
    }
}

impl State {
    /// Counts a step. `Ok(true)` if the power goes with it.
    fn step(&mut self, path: &Path, what: &'static str) -> io::Result<bool> {
        if self.gone {
            return Err(no_power());
        }
        let step = (purpose(path), what);
        *self.steps.entry(step).or_default() += 1;
        if let Some((at, left)) = &mut self.at
            && *at == step
        {
            *left -= 1;
            self.gone = *left == 0;
        }
        Ok(self.gone)
    }

    /// Of an open file.
    fn path(&self, inode: u64) -> io::Result<PathBuf> {
        let known = self.files.get(&inode).map(|file| file.path.clone());
        known.ok_or_else(|| io::Error::other("the file is deleted"))
    }

    fn note(&mut self, path: &Path, change: Name) {
        let folder = path.parent().unwrap().to_path_buf();
        self.names.entry(folder).or_default().push(change);
    }
}

/// What is known of a file goes with its name.
fn move_known(files: &mut BTreeMap<u64, Known>, from: &Path, to: &Path) {
    files.values_mut().filter(|file| file.path == from).for_each(|file| file.path = to.to_path_buf());
}

fn no_power() -> io::Error {
    io::Error::other("the power is gone")
}

/// With the call at which the power goes, it is a coin whether it is done.
fn done(state: &mut State, goes: bool) -> io::Result<()> {
    if goes && state.dice.below(2) == 0 { Err(no_power()) } else { Ok(()) }
}

/// Whoever asked does not hear of it either way.
fn answer<T>(goes: bool, value: T) -> io::Result<T> {
    if goes { Err(no_power()) } else { Ok(value) }
}

impl Storage for PowerCut {
    fn create(&self, path: &Path) -> io::Result<Box<dyn StoredFile>> {
        let mut state = self.lock();
        let goes = state.step(path, "create")?;
        done(&mut state, goes)?;
        let new = !path.exists();
        let file = OpenOptions::new().write(true).create(true).truncate(true).open(path)?;
        let inode = file.metadata()?.ino();
        state.files.insert(inode, Known { path: path.to_path_buf(), sure: 0 });
        if new {
            state.note(path, Name::Created(path.to_path_buf()));
        }
        answer(goes, Box::new(Handle { disk: self.clone(), file, inode }))
    }

    fn open(&self, path: &Path) -> io::Result<Box<dyn StoredFile>> {
        let mut state = self.lock();
        let goes = state.step(path, "open")?;
        let file = OpenOptions::new().write(true).open(path)?;
        // What is there when the machine starts is on the disk.
        let (inode, sure) = (file.metadata()?.ino(), file.metadata()?.len());
        state.files.entry(inode).or_insert(Known { path: path.to_path_buf(), sure });
        answer(goes, Box::new(Handle { disk: self.clone(), file, inode }))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut state = self.lock();
        let goes = state.step(to, "rename")?;
        done(&mut state, goes)?;
        let before = fs::read(to).ok();
        fs::rename(from, to)?;
        state.files.retain(|_, file| file.path != to);
        move_known(&mut state.files, from, to);
        state.note(to, Name::Renamed(from.to_path_buf(), to.to_path_buf(), before));
        answer(goes, ())
    }

    fn link(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut state = self.lock();
        let goes = state.step(to, "link")?;
        done(&mut state, goes)?;
        fs::hard_link(from, to)?;
        move_known(&mut state.files, from, to);
        state.note(to, Name::Linked(from.to_path_buf(), to.to_path_buf()));
        answer(goes, ())
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        let mut state = self.lock();
        let goes = state.step(path, "remove")?;
        done(&mut state, goes)?;
        let held = fs::read(path)?;
        fs::remove_file(path)?;
        state.files.retain(|_, file| file.path != path);
        state.note(path, Name::Removed(path.to_path_buf(), held));
        answer(goes, ())
    }

    fn sync_folder(&self, folder: &Path) -> io::Result<()> {
        let mut state = self.lock();
        let goes = state.step(folder, "sync folder")?;
        done(&mut state, goes)?;
        state.names.remove(folder);
        answer(goes, ())
    }

    fn sync_failed(&self, _: &Path, _: &io::Error) {
        assert!(self.gone(), "only a power cut lets a sync fail");
    }
}

impl StoredFile for Handle {
    fn write_at(&self, bytes: &[u8], position: u64) -> io::Result<usize> {
        let mut state = self.disk.lock();
        let path = state.path(self.inode)?;
        let goes = state.step(&path, "write")?;
        let length = if goes { state.dice.below(bytes.len() as u64 + 1) as usize } else { bytes.len() };
        FileExt::write_all_at(&self.file, &bytes[..length], position)?;
        answer(goes, length)
    }

    fn sync(&self) -> io::Result<()> {
        let mut state = self.disk.lock();
        let path = state.path(self.inode)?;
        let goes = state.step(&path, "sync")?;
        done(&mut state, goes)?;
        let length = self.file.metadata()?.len();
        state.files.insert(self.inode, Known { path, sure: length });
        answer(goes, ())
    }

    fn set_len(&self, length: u64) -> io::Result<()> {
        let mut state = self.disk.lock();
        let path = state.path(self.inode)?;
        let goes = state.step(&path, "cut")?;
        done(&mut state, goes)?;
        File::set_len(&self.file, length)?;
        let sure = state.files.get(&self.inode).map_or(0, |file| file.sure.min(length));
        state.files.insert(self.inode, Known { path, sure });
        answer(goes, ())
    }
}
