//! Functions that are called a thousand times a second log once a minute what they did.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use tokio::time::sleep;

/// From the first count to the line that tells of it.
const PERIOD: Duration = Duration::from_secs(60);

/// What a function did since its last line. Cheap to clone.
#[derive(Clone)]
pub struct Tally {
    function: &'static str,
    counts: Arc<Mutex<BTreeMap<&'static str, u64>>>,
}

impl Tally {
    pub fn new(function: &'static str) -> Self {
        Self { function, counts: Arc::default() }
    }

    /// Counts one more. Returns whether it is the first of its kind since the last line: what goes wrong a thousand times
    /// is told in full once.
    ///
    /// Must be called within a runtime.
    pub fn count(&self, what: &'static str) -> bool {
        let (is_first_of_all, is_first) = {
            let mut counts = self.counts();
            let is_first_of_all = counts.is_empty();
            let count = counts.entry(what).or_default();
            *count += 1;
            (is_first_of_all, *count == 1)
        };
        if is_first_of_all {
            let tally = self.clone();
            tokio::spawn(async move {
                sleep(PERIOD).await;
                let counts = std::mem::take(&mut *tally.counts());
                tracing::info!("{}: {} within {} s", tally.function, text(&counts), PERIOD.as_secs());
            });
        }
        is_first
    }

    fn counts(&self) -> std::sync::MutexGuard<'_, BTreeMap<&'static str, u64>> {
        self.counts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn text(counts: &BTreeMap<&'static str, u64>) -> String {
    counts.iter().map(|(what, count)| format!("{count} {what}")).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn the_first_of_a_kind_is_told_again_after_a_minute() {
        let tally = Tally::new("f");
        assert!(tally.count("forwarded"));
        assert!(!tally.count("forwarded"));
        assert!(tally.count("hub_unreachable"));
        assert_eq!(text(&tally.counts()), "2 forwarded, 1 hub_unreachable");
        sleep(PERIOD + Duration::from_secs(1)).await;
        assert!(tally.counts().is_empty());
        assert!(tally.count("forwarded"));
    }
}
