//! Blocks of memory that come back to whoever reads.
//!
//! A reader fills a block of a megabyte, hands it on, and needs the next. When it is dropped, often on another
//! thread, the allocator may give memory of that size back to the system, which fills it with zeros before it
//! gives it out again. Instead a block goes back to its reader when the last slice of it is dropped.

use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;

/// Blocks waiting to be filled again beyond this many are freed: what a job has in flight, and a little.
const KEPT: usize = 40;
/// Room comes in multiples of this, so that blocks that differ a little can stand for one another.
const ROUNDED_TO: usize = 64 << 10;

/// A reader's blocks.
#[derive(Clone, Debug, Default)]
pub(super) struct Blocks {
    free: Arc<Mutex<Vec<Vec<u8>>>>,
}

impl Blocks {
    /// An empty block with room for `capacity` bytes.
    pub(super) fn take(&self, capacity: usize) -> Vec<u8> {
        let capacity = capacity.next_multiple_of(ROUNDED_TO);
        let mut free = self.free.lock().unwrap_or_else(PoisonError::into_inner);
        match free.pop() {
            Some(block) if block.capacity() >= capacity => block,
            // Records have become longer: one that is too small is of no more use.
            _ => Vec::with_capacity(capacity),
        }
    }

    /// The block's content, to be shared; the block comes back when all slices of it are gone.
    pub(super) fn lend(&self, block: Vec<u8>) -> Bytes {
        Bytes::from_owner(Lent { block, home: self.clone() })
    }
}

struct Lent {
    block: Vec<u8>,
    home: Blocks,
}

impl AsRef<[u8]> for Lent {
    fn as_ref(&self) -> &[u8] {
        &self.block
    }
}

impl Drop for Lent {
    fn drop(&mut self) {
        let mut block = std::mem::take(&mut self.block);
        block.clear();
        let mut free = self.home.free.lock().unwrap_or_else(PoisonError::into_inner);
        if free.len() < KEPT {
            free.push(block);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_block_comes_back_when_its_last_slice_is_dropped() {
        let blocks = Blocks::default();
        let mut block = blocks.take(100);
        block.extend(b"some bytes");
        let place = block.as_ptr();
        let whole = blocks.lend(block);
        let part = whole.slice(5..);
        drop(whole);
        let other = blocks.take(100);
        assert_ne!(other.as_ptr(), place, "a slice of it is still held");
        assert_eq!(part, "bytes");
        drop(part);
        let again = blocks.take(100);
        assert_eq!((again.as_ptr(), again.len()), (place, 0));
        drop(blocks.lend(again));
        let wanted = ROUNDED_TO + 1;
        assert!(blocks.take(wanted).capacity() >= wanted, "one that is too small is not given out");
    }
}
