//! What an instant does: each group of linked events and incidents becomes one incident.

use std::collections::BTreeMap;

use xxhash_rust::xxh3::xxh3_64_with_seed;

use super::changelog::{Entry, Kind};
use super::incident::{EventKey, Incident};
use super::instant::{Group, Instant, Rows};
use super::links::NONE;
use super::{Correlate, span_end};

impl Correlate {
    /// Takes in the events of one instant.
    pub(super) fn process(&mut self, time: i64, batches: &[Rows<'_>], events: &[(u32, u32)]) {
        if events.is_empty() {
            return;
        }
        let mut instant = std::mem::take(&mut self.instant);
        instant.gather(
            &self.settings,
            time,
            batches,
            events,
            &mut self.links,
            &mut self.components,
            &mut self.timers,
            &mut self.work,
        );
        let mut lonely = BTreeMap::new();
        let mut owners = std::mem::take(&mut self.owners);
        owners.clear();
        owners.resize(events.len(), NONE);
        for group in instant.groups() {
            let Some(owner) = self.unite(time, batches, events, &instant, &group, &mut lonely) else {
                continue;
            };
            group.events().for_each(|event| owners[event] = owner);
        }
        for &(tuple, event) in &instant.tuples {
            let newest = self.links.at(tuple);
            newest.pending = NONE;
            let before = std::mem::replace(&mut newest.owner, owners[event as usize]);
            self.components.hold(newest.owner);
            self.components.release(before);
        }
        for slot in std::mem::take(&mut self.full) {
            self.close(slot, time, Some("max_events"));
        }
        (self.instant, self.owners) = (instant, owners);
    }

    /// Makes one incident of a group; gives its slot. `lonely` counts the events of the instant that
    /// cannot link, by content, so that equal ones become incidents of different names.
    fn unite(
        &mut self,
        time: i64,
        batches: &[Rows<'_>],
        events: &[(u32, u32)],
        instant: &Instant,
        group: &Group<'_>,
        lonely: &mut BTreeMap<u64, u64>,
    ) -> Option<u32> {
        let settings = self.settings.clone();
        let alone = group.events().all(|event| !instant.linkable[event]);
        if alone && settings.min_events > 1 {
            return None;
        }
        let mut buffer = std::mem::take(&mut self.buffer);

        // What the incidents were before this instant.
        let mut open: Option<EventKey> = None;
        let mut silent: Option<EventKey> = None;
        let mut base: Option<(u64, u32)> = None;
        for slot in group.incidents() {
            let Some(root) = self.components.get_mut(slot) else { continue };
            root.mark = NONE;
            let incident = &root.incident;
            let first = if incident.is_open() { &mut open } else { &mut silent };
            *first = Some(first.map_or(incident.key, |key| key.min(incident.key)));
            if base.is_none_or(|(events, _)| incident.events > events) {
                base = Some((incident.events, slot));
            }
        }
        let revision = match open {
            Some(survivor) => self.end_merged(time, group, survivor),
            None => 0,
        };
        let key = open.or(silent).unwrap_or_else(|| {
            let hashes = group.events().map(|event| {
                let (batch, row) = events[event];
                batches[batch as usize].hash(row as usize, &mut buffer)
            });
            let mut hash = hashes.min().unwrap_or_default();
            if alone {
                let twins = lonely.entry(hash).or_insert(0);
                if *twins > 0 {
                    hash = xxh3_64_with_seed(&hash.to_le_bytes(), *twins);
                }
                *twins += 1;
            }
            EventKey { time, hash }
        });

        // The smaller ones go into the largest, and then the events.
        let slot = match base {
            Some((_, base)) => {
                for other in group.incidents().filter(|&other| other != base) {
                    self.work.moved += 1 + self.components.absorb(base, other);
                }
                base
            }
            None => {
                let empty = Incident::new(key, settings.links.len(), settings.count.len());
                self.components.insert(empty)
            }
        };
        let incident = &mut self.components.get_mut(slot)?.incident;
        incident.key = key;
        incident.revision = revision;
        for event in group.events() {
            let (batch, row) = events[event];
            let (rows, row) = (&batches[batch as usize], row as usize);
            let severity = settings.severity.map_or(1.0, |c| rows.columns[c].number(row).unwrap_or(0.0));
            incident.add(time, severity);
            for (link, edges) in incident.edges.iter_mut().enumerate() {
                *edges += u64::from(instant.edges[event] >> link & 1);
            }
            for (tally, &column) in incident.tallies.iter_mut().zip(&settings.count) {
                buffer.clear();
                if rows.columns[column].write(row, &mut buffer) {
                    tally.add(&buffer, 1);
                }
            }
            if let Some(column) = settings.members {
                buffer.clear();
                if rows.columns[column].write(row, &mut buffer) {
                    incident.add_member(time, &buffer);
                }
            }
        }

        // What there is to tell.
        if incident.is_open() {
            if !incident.changed {
                incident.changed = true;
                if self.changed.is_empty() {
                    self.update_at = span_end(time, settings.update_every_ms);
                }
                self.changed.push(slot);
            }
        } else if incident.events >= settings.min_events {
            incident.revision = 1;
            self.changelog.write(&settings, &Entry { at: time, kind: Kind::Opened, incident, into: None, note: None, more: None });
            self.work.rows += 1;
        }
        if incident.events >= settings.max_events {
            self.full.push(slot);
        }
        self.buffer = buffer;
        self.schedule(slot);
        Some(slot)
    }

    /// Tells the end of the open incidents of a group that do not survive it; gives how many rows
    /// have told of the survivor.
    fn end_merged(&mut self, time: i64, group: &Group<'_>, survivor: EventKey) -> i64 {
        let mut revision = 0;
        for slot in group.incidents() {
            let Some(root) = self.components.get_mut(slot).filter(|root| root.incident.is_open()) else {
                continue;
            };
            let incident = &mut root.incident;
            if incident.key == survivor {
                revision = incident.revision;
                continue;
            }
            incident.revision += 1;
            let into = survivor.id();
            let row = Entry { at: time, kind: Kind::Merged, incident, into: Some(&into), note: None, more: None };
            self.changelog.write(&self.settings, &row);
            self.work.rows += 1;
        }
        revision
    }
}
