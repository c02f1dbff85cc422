//! What a session came to.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use super::forwarded::Forwarded;

#[derive(Debug, Default)]
pub struct Tally {
    pub succeeded: usize,
    pub failed: usize,
    /// Runs that have begun and not ended.
    pub under_way: usize,
    /// Messages that came faster than they could be shown.
    pub missed: u64,
    /// Why the host has stopped by itself.
    pub gave_up: Option<String>,
    pub sites: BTreeMap<String, Site>,
}

/// What reached the hub from a site.
#[derive(Debug, Default)]
pub struct Site {
    pub messages: usize,
    pub rows: usize,
    pub newest: Option<String>,
    pub values: Map<String, Value>,
}

impl Tally {
    pub fn finished(&mut self, succeeded: bool) {
        self.under_way = self.under_way.saturating_sub(1);
        *(if succeeded { &mut self.succeeded } else { &mut self.failed }) += 1;
    }

    pub fn add(&mut self, forwarded: Forwarded) {
        let site = self.sites.entry(forwarded.site).or_default();
        site.messages += 1;
        site.rows += forwarded.rows;
        // The stamps are all UTC in one format: they sort as text. What is sent again is not newer.
        if forwarded.newest >= site.newest {
            (site.newest, site.values) = (forwarded.newest, forwarded.values);
        }
    }

    pub fn is_success(&self) -> bool {
        self.succeeded > 0 && self.failed == 0 && self.gave_up.is_none()
    }

    pub fn messages(&self) -> usize {
        self.sites.values().map(|site| site.messages).sum()
    }

    pub fn rows(&self) -> usize {
        self.sites.values().map(|site| site.rows).sum()
    }
}
