//! What the step remembers, as it is written down: an entry an alert, group and silence, and one of storms.

use std::sync::Arc;

use levada_types::{KeyGroup, StateChanges};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::group::Group;
use super::labels::Labels;
use super::life::Alert;
use super::operator::{Alerts, Due, Entry};
use crate::operator::OperatorError;

/// The first byte of an entry's name.
const ALERT: u8 = 0;
const GROUP: u8 = 1;
const SILENCE: u8 = 2;
const STORM: u8 = 3;

impl Entry {
    fn name(&self) -> Result<Vec<u8>, OperatorError> {
        match self {
            Entry::Alert(labels) => encode(&(ALERT, labels.as_ref())),
            Entry::Group(labels) => encode(&(GROUP, labels.as_ref())),
            Entry::Silence(id) => encode(&(SILENCE, id.as_ref())),
            Entry::Storm => Ok(vec![STORM]),
        }
    }
}

impl Alerts {
    /// Appends what changed.
    pub(super) fn write(&mut self, changes: &mut StateChanges) -> Result<(), OperatorError> {
        for entry in std::mem::take(&mut self.changed) {
            let value = match &entry {
                Entry::Alert(labels) => self.alerts.get(labels).map(encode),
                Entry::Group(labels) => self.groups.get(labels).map(encode),
                Entry::Silence(id) => self.silences.get(id).map(encode),
                Entry::Storm => Some(encode(&self.storm)),
            };
            match value.transpose()? {
                Some(value) => changes.put(KeyGroup(0), &entry.name()?, &value),
                None => changes.delete(KeyGroup(0), &entry.name()?),
            }
        }
        Ok(())
    }

    /// Takes up what was written.
    pub(super) fn read(&mut self, entries: &StateChanges) -> Result<(), OperatorError> {
        for change in entries.iter() {
            let Some(value) = change.value else { continue };
            match change.key.split_first() {
                Some((&ALERT, name)) => _ = self.alerts.insert(Arc::new(decode(name)?), decode(value)?),
                Some((&GROUP, name)) => {
                    let (labels, group): (Labels, Group) = (decode(name)?, decode(value)?);
                    let labels = Arc::new(labels);
                    self.timers.insert((group.next, Due::Group(labels.clone())));
                    self.timers.extend(group.escalates.map(|at| (at, Due::Escalation(labels.clone()))));
                    self.groups.insert(labels, group);
                }
                Some((&SILENCE, name)) => {
                    let id: Arc<str> = decode::<String>(name)?.into();
                    let silence: super::silences::Silence = decode(value)?;
                    self.timers.insert((silence.ends_at, Due::Silence(id.clone())));
                    let set = self.silences.set(id, silence);
                    set.map_err(|problem| OperatorError::State(format!("read a silence: {problem}")))?;
                }
                Some((&STORM, _)) => {
                    self.storm = decode(value)?;
                    self.timers.extend(self.storm.due.map(|at| (at, Due::Storm)));
                    self.timers.extend(self.storm.escalates.map(|at| (at, Due::StormEscalation)));
                }
                _ => return Err(damaged("an entry of an unknown kind")),
            }
        }
        let all: Vec<Arc<Labels>> = self.alerts.keys().cloned().collect();
        for labels in all {
            let Alert { grouped, .. } = self.alerts[&labels];
            if self.alerts[&labels].is_firing() {
                self.sources.insert(&self.plan.inhibit, &labels);
            }
            if grouped {
                let group = self.group_of(&labels);
                let group = self.groups.get_mut(&group);
                group.ok_or_else(|| damaged("an alert without its group"))?.alerts.insert(labels.clone());
            }
            self.schedule(&labels);
        }
        Ok(())
    }
}

fn encode<T: Serialize + ?Sized>(value: &T) -> Result<Vec<u8>, OperatorError> {
    postcard::to_stdvec(value).map_err(|error| OperatorError::State(format!("write an alert: {error}")))
}

fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, OperatorError> {
    postcard::from_bytes(bytes).map_err(|error| OperatorError::State(format!("read an alert: {error}")))
}

fn damaged(what: &str) -> OperatorError {
    OperatorError::State(format!("read an alert: there is {what}"))
}
