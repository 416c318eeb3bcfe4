//! Newtypes for the numbers that must not be mixed up.

use std::fmt;

use serde::{Deserialize, Serialize};

macro_rules! number {
    ($(#[$doc:meta])* $name:ident($inner:ty)) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        pub struct $name(pub $inner);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }
    };
}

number!(
    /// The logical time of the dataflow: one step in which every operator sees a consistent cut
    /// of all sources. Epochs only grow; numbers may be skipped.
    Epoch(u64)
);
number!(
    /// A partition of one source, dense from 0.
    PartitionId(u32)
);
number!(
    /// A record's position in its partition. Grows by record, may have gaps.
    Offset(u64)
);
number!(
    /// One of [`crate::KEY_GROUPS`] groups of keys: the unit in which state moves between workers.
    KeyGroup(u16)
);

impl KeyGroup {
    /// The worker that owns this group among `peers` workers.
    #[inline]
    pub fn worker(self, peers: usize) -> usize {
        usize::from(self.0) * peers / usize::from(crate::KEY_GROUPS)
    }
}
