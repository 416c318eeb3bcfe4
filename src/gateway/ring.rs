//! The newest records of a partition, encoded, in memory.
//!
//! ```text
//!   log   0 ─────────────────────────────── next
//!   ring                   first ────────── next      a client at an offset before `first` reads the log
//! ```
//!
//! Offsets are contiguous, so a client's offset is all it takes to go from the log to the ring: nothing is
//! handed over, and nothing can fall between them. Bound: the bytes of the frames held.

use std::collections::VecDeque;

use bytes::Bytes;

/// The newest frames of a partition.
#[derive(Debug)]
pub struct Ring {
    frames: VecDeque<Bytes>,
    first: u64,
    bytes: usize,
    limit_bytes: usize,
}

/// What a ring has for a client at some offset.
#[derive(Debug)]
pub enum Look<'a> {
    /// The offset is older than the ring: read the log.
    Behind,
    /// The frames from the offset on; none at the end.
    Frames(std::collections::vec_deque::Iter<'a, Bytes>),
}

impl Ring {
    /// An empty ring whose first frame will be record `next`.
    pub fn new(next: u64, limit_bytes: usize) -> Ring {
        Ring { frames: VecDeque::new(), first: next, bytes: 0, limit_bytes }
    }

    /// The offset of the next record to come.
    pub fn next(&self) -> u64 {
        self.first + self.frames.len() as u64
    }

    /// The bytes of all frames held.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Adds record `next()`, and drops the oldest beyond the bound.
    pub fn push(&mut self, frame: Bytes) {
        self.bytes += frame.len();
        self.frames.push_back(frame);
        while self.bytes > self.limit_bytes
            && let Some(oldest) = self.frames.pop_front()
        {
            self.bytes -= oldest.len();
            self.first += 1;
        }
    }

    /// What there is from `offset` on. A client that read the log may be ahead of the ring: it waits.
    pub fn look(&self, offset: u64) -> Look<'_> {
        match offset.checked_sub(self.first) {
            None => Look::Behind,
            Some(skip) => {
                let skip = usize::try_from(skip).unwrap_or(usize::MAX).min(self.frames.len());
                Look::Frames(self.frames.range(skip..))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_leave_and_offsets_stay() {
        let mut ring = Ring::new(10, 5);
        for frame in ["aa", "bb", "c", "dd"] {
            ring.push(Bytes::from_static(frame.as_bytes()));
        }
        assert_eq!((ring.next(), ring.bytes()), (14, 5));
        let seen = |offset| match ring.look(offset) {
            Look::Behind => None,
            Look::Frames(frames) => Some(frames.map(|frame| frame.to_vec()).collect::<Vec<_>>().concat()),
        };
        assert_eq!(seen(10), None);
        assert_eq!(seen(11), Some(b"bbcdd".to_vec()));
        assert_eq!(seen(13), Some(b"dd".to_vec()));
        assert_eq!(seen(14), Some(vec![]));
        assert_eq!(seen(u64::MAX), Some(vec![]));
    }

    #[test]
    fn a_frame_larger_than_the_ring_is_left_to_the_log() {
        let mut ring = Ring::new(0, 5);
        ring.push(Bytes::from_static(b"too large"));
        assert_eq!((ring.next(), ring.bytes()), (1, 0));
        assert!(matches!(ring.look(0), Look::Behind));
    }
}
