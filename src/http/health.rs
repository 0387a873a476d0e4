//! Whether this node should get traffic, and whether it takes writes.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::error::{Error, Result};

/// Why a node is not ready. The order is that in which reasons are told.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Cause {
    /// A fatal error: the process is about to end.
    Fatal,
    /// It recovers its rooms.
    Starting,
    /// It stops: what is committed is still published.
    Draining,
    /// There is little room on the disk.
    Disk,
    /// There is no checkpoint yet, so clients find nothing. Writes are committed.
    Unpublished,
    /// A room, by its number, cannot go on for now, such as a compactor with a wrong clock. Writes are still committed.
    Room(usize),
}

impl Cause {
    fn refuses_writes(self) -> bool {
        !matches!(self, Cause::Room(_) | Cause::Unpublished)
    }
}

/// The reasons of one node, shared between what finds them and what answers.
pub struct Health(Mutex<BTreeMap<Cause, String>>);

impl Default for Health {
    fn default() -> Health {
        Health::new()
    }
}

impl Health {
    /// Of a node that is starting: not ready until [`Health::clear`] takes that away.
    pub fn new() -> Health {
        Health(Mutex::new(BTreeMap::from([(Cause::Starting, "starting".to_owned())])))
    }

    fn reasons_now(&self) -> MutexGuard<'_, BTreeMap<Cause, String>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Makes the node unready, in words such as `disk full: 12 MiB free, 256 MiB needed`.
    pub fn set(&self, cause: Cause, reason: impl Into<String>) {
        self.reasons_now().insert(cause, reason.into());
    }

    /// Takes a reason away.
    pub fn clear(&self, cause: Cause) {
        self.reasons_now().remove(&cause);
    }

    /// Why the node is not ready; empty when it is.
    pub fn reasons(&self) -> Vec<String> {
        self.reasons_now().values().cloned().collect()
    }

    /// `Unavailable` while writes are refused, with the reason.
    pub fn check_writes(&self) -> Result<()> {
        match self.reasons_now().iter().find(|(cause, _)| cause.refuses_writes()) {
            None => Ok(()),
            Some((_, reason)) => Err(Error::unavailable(format!("no writes now: {reason}"))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_disk_refuses_writes_and_a_stuck_room_does_not() {
        let health = Health::new();
        assert!(health.check_writes().is_err());
        health.clear(Cause::Starting);
        assert!(health.check_writes().is_ok() && health.reasons().is_empty());
        health.set(Cause::Room(1), "clock");
        assert!(health.check_writes().is_ok());
        health.set(Cause::Disk, "disk full");
        assert!(health.check_writes().unwrap_err().message.contains("disk full"));
        assert_eq!(health.reasons(), ["disk full", "clock"]);
        health.clear(Cause::Disk);
        assert!(health.check_writes().is_ok());
    }
}
