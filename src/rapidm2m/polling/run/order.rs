//! Which sites may have news, and in which order they have their turns.

use std::{collections::HashSet, sync::Arc};

use tokio::time::Instant;

use super::{
    Memory, Polling, SiteEntry, Summary,
    hint::{Asked, Hint},
    sites::Task,
};
use crate::rapidm2m::{
    Site,
    polling::{Report, SiteMemory},
};

/// A site that has a turn.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Due {
    pub task: Task,
    pub site: Site,
    /// Some of its messages wait for the hub.
    pub has_waiting: bool,
}

/// A site in the order of a run.
pub struct InTurn {
    last_turn: u64,
    pub is_slow: bool,
    pub due: Due,
    pub memory: Arc<tokio::sync::Mutex<SiteMemory>>,
}

impl Polling {
    /// The tasks without the sites that can have no news.
    pub(super) fn with_news(&self, tasks: Vec<(Task, Site)>, has_hints: bool, summary: &mut Summary) -> Vec<Due> {
        let clock = self.forwarder.world.clock.now();
        let mut memory = self.memory();
        let places: HashSet<_> = tasks.iter().map(|(_, site)| site.key.site.as_str()).collect();
        memory.entries.retain(|place, _| places.contains(place.as_str()));
        drop(places);
        let hints = if has_hints { self.hints(&mut memory, &tasks) } else { Vec::new() };
        let Memory { entries, sites, .. } = &mut *memory;
        let directory = sites.directory();
        let is_mark_due =
            |place: &String| entries.get(place).is_some_and(|entry| entry.is_mark_due(self.forwarder.mark_within));
        let mut hints = hints.into_iter();
        let due = tasks.into_iter().filter_map(|(task, site)| {
            let has_waiting = directory.as_ref().is_some_and(|directory| directory.waiting(&site.key.site) > 0);
            if let Some(Hint::Quiet { newest }) = hints.next()
                && !has_waiting
            {
                summary.quiet += 1;
                if is_mark_due(&site.key.site) {
                    return Some(Due { task: Task::Mark, site, has_waiting });
                }
                summary.lags.add(&site.name, &Report { newest, ..Report::default() }, clock);
                return None;
            }
            Some(Due { task, site, has_waiting })
        });
        due.collect()
    }

    /// What the list says of each site; nothing if that has turned out to be wrong.
    fn hints(&self, memory: &mut Memory, tasks: &[(Task, Site)]) -> Vec<Hint> {
        let (Some(sweep), now) = (self.options.sweep.filter(|_| !memory.is_hint_wrong), Instant::now()) else {
            return Vec::new();
        };
        let Memory { entries, sites, .. } = &mut *memory;
        let directory = sites.directory();
        let hint = |(task, site): &(Task, Site)| {
            let place = &site.key.site;
            if *task != Task::Poll {
                return Hint::Ask;
            }
            if let Some(known) = directory.as_ref().and_then(|directory| directory.at(place)) {
                entries.entry(place.clone()).or_insert_with(|| SiteEntry {
                    asked: Asked::of(known, sweep, fastrand::f64(), now),
                    ..SiteEntry::default()
                });
            }
            entries.get_mut(place).map_or(Hint::Ask, |entry| entry.asked.hint(site, now))
        };
        let hints: Vec<_> = tasks.iter().map(hint).collect();
        let Some(wrong) = hints.iter().position(|hint| *hint == Hint::Wrong) else { return hints };
        (memory.is_hint_wrong, memory.notes_wrong_hint) = (true, true);
        tracing::warn!(
            site.name = tasks[wrong].1.name,
            "the site had new rows, but the site list tells no new contact (device.stamp) of it: from now on each site is \
             asked in each run, as with SweepMinutes=0"
        );
        Vec::new()
    }

    /// The sites with what is remembered of them. Those that have waited longest come first.
    pub(super) fn in_turn(&self, due: Vec<Due>) -> Vec<InTurn> {
        let mut memory = self.memory();
        memory.invocations += 1;
        let mut turns: Vec<_> = due
            .into_iter()
            .map(|due| {
                let entry = memory.entries.entry(due.site.key.site.clone()).or_default();
                InTurn { last_turn: entry.last_turn, is_slow: entry.is_slow, memory: entry.memory(), due }
            })
            .collect();
        turns.sort_by_key(|turn| turn.last_turn);
        // If most of them gave no answer, it was the backend.
        if turns.iter().filter(|turn| turn.is_slow).count() * 2 > turns.len() {
            turns.iter_mut().for_each(|turn| turn.is_slow = false);
        }
        turns
    }
}
