//! Keeps a device's commands in order: only one uplink at a time fetches them. An uplink that comes meanwhile does not
//! wait. It leaves a mark, and the current fetcher looks once more before it ends.

use std::{
    collections::{HashMap, hash_map::Entry},
    sync::{Mutex, MutexGuard, PoisonError},
};

/// The devices whose commands are being fetched, each with whether another uplink has come since the last look.
#[derive(Default)]
pub struct Fetching(Mutex<HashMap<String, bool>>);

/// The right to fetch a device's commands. Dropping it frees the device.
pub struct Fetcher<'a> {
    all: &'a Fetching,
    device: String,
    has_ended: bool,
}

impl Fetching {
    /// `None`: another uplink already fetches, and will look again.
    pub fn begin(&self, device: &str) -> Option<Fetcher<'_>> {
        match self.devices().entry(device.to_owned()) {
            Entry::Occupied(mut is_wanted_again) => {
                is_wanted_again.insert(true);
                None
            }
            Entry::Vacant(free) => {
                free.insert(false);
                Some(Fetcher { all: self, device: device.to_owned(), has_ended: false })
            }
        }
    }

    fn devices(&self) -> MutexGuard<'_, HashMap<String, bool>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Fetcher<'_> {
    /// Whether another uplink has come since the last look. Call it when no command is left. If no uplink has come,
    /// the device is free at once, so no uplink can come in between without a fetcher.
    pub fn is_wanted_again(&mut self) -> bool {
        let mut devices = self.all.devices();
        let is_wanted_again = devices.get_mut(&self.device).is_some_and(std::mem::take);
        if !is_wanted_again {
            devices.remove(&self.device);
            self.has_ended = true;
        }
        is_wanted_again
    }
}

impl Drop for Fetcher<'_> {
    fn drop(&mut self) {
        // After the end, the entry may belong to another fetcher.
        if !self.has_ended {
            self.all.devices().remove(&self.device);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_finds_somebody_at_it_leaves_word() {
        let fetching = Fetching::default();
        let mut first = fetching.begin("one").expect("nobody is at it");
        assert!(fetching.begin("other").is_some(), "devices do not wait for each other");
        assert!(fetching.begin("one").is_none() && fetching.begin("one").is_none());
        assert!(first.is_wanted_again());
        assert!(!first.is_wanted_again(), "both came before the look");
        let second = fetching.begin("one").expect("the first has ended");
        drop(first);
        assert!(fetching.begin("one").is_none(), "the second is still at it");
        drop(second);
        assert!(fetching.devices().is_empty());
    }

    #[test]
    fn whoever_gives_up_leaves_nothing_behind() {
        let fetching = Fetching::default();
        drop(fetching.begin("one"));
        assert!(fetching.begin("one").is_some());
    }
}
