//! Refused logins. Backends lock accounts after some of them, so they are counted over restarts: the ledger keeps them. Pure.

use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use serde::{Deserialize, Serialize};

/// Within an hour so many wrong logins are tried at most, restarts included.
pub const MOST: usize = 4;
const HOUR: TimeDelta = TimeDelta::hours(1);
/// The waits after so many refusals within an hour. Two make the first: a single one may be the fault of one site.
const WAITS: [u64; MOST + 1] = [0, 15, 15, 30, 60];

/// The refused logins of the last hour.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct Refusals {
    /// Stands for the credentials, so that corrected ones are tried at once. See `config`.
    pub credentials: String,
    pub times: Vec<DateTime<Utc>>,
}

impl Refusals {
    pub fn add(&mut self, now: DateTime<Utc>) {
        self.forget_old(now);
        self.times.push(now);
    }

    /// Adds those that other processes have noted of the same credentials.
    pub fn merge(&mut self, other: Self) {
        if other.credentials == self.credentials {
            self.times.extend(other.times);
            self.times.sort_unstable();
            self.times.dedup();
        }
    }

    /// Refusals of other credentials, and old ones, do not count. Neither do those of a clock that was ahead.
    #[must_use]
    pub fn of(mut self, credentials: &str, now: DateTime<Utc>) -> Self {
        if self.credentials != credentials {
            self = Self { credentials: credentials.to_owned(), times: Vec::new() };
        }
        self.forget_old(now);
        self
    }

    fn forget_old(&mut self, now: DateTime<Utc>) {
        self.times.retain(|time| now - *time < HOUR && *time <= now);
    }

    /// How long no login is tried after the last one was refused.
    #[must_use]
    pub fn wait(&self, now: DateTime<Utc>) -> Duration {
        let minutes = WAITS[self.times.len().min(MOST)];
        let until = self.times.last().map_or(now, |last| *last + TimeDelta::seconds(minutes as i64 * 60));
        (until - now).to_std().unwrap_or_default()
    }

    /// Whether a restart may not try at once: there were too many already.
    #[must_use]
    pub fn are_too_many(&self) -> bool {
        self.times.len() >= MOST
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn at(minute: i64) -> DateTime<Utc> {
        DateTime::UNIX_EPOCH + TimeDelta::minutes(minute)
    }

    #[test]
    fn other_credentials_begin_anew() {
        let mut refusals = Refusals::default().of("a", at(0));
        (0..4).for_each(|minute| refusals.add(at(minute)));
        assert!(refusals.are_too_many());
        assert_eq!(refusals.clone().of("a", at(4)), refusals);
        assert!(refusals.clone().of("b", at(4)).times.is_empty());
        assert_eq!(refusals.clone().of("a", at(61)).times, [at(2), at(3)], "an hour later");
        assert!(refusals.of("a", at(-1)).times.is_empty(), "of a clock that was ahead");
    }

    #[test]
    fn those_of_several_processes_add_up() {
        let of = |credentials, times: &[i64]| Refusals {
            credentials: String::from(credentials),
            times: times.iter().map(|time| at(*time)).collect(),
        };
        let mut refusals = of("a", &[1, 4]);
        refusals.merge(of("a", &[2, 4]));
        refusals.merge(of("b", &[3]));
        assert_eq!(refusals, of("a", &[1, 2, 4]));
    }

    proptest! {
        /// Whoever tries when the wait is over, and at once after restarts as long as there were not too many.
        #[test]
        fn no_hour_has_more_than_five(restarts in prop::collection::vec(0_i64..40, 0..40)) {
            let (mut refusals, mut tried, mut now) = (Refusals::default(), vec![at(0), at(0)], at(0));
            tried.iter().for_each(|time| refusals.add(*time));
            for minutes in restarts {
                let due = now + TimeDelta::from_std(refusals.wait(now)).unwrap();
                let restart = now + TimeDelta::minutes(minutes);
                now = if due <= restart { due } else { restart };
                let kept = refusals.clone().of("", now);
                if due <= restart || !kept.are_too_many() {
                    refusals.add(now);
                    tried.push(now);
                }
            }
            for time in &tried {
                let within = tried.iter().filter(|other| *time <= **other && **other - *time < HOUR).count();
                prop_assert!(within <= 5, "{within} from {time}: {tried:?}");
            }
        }
    }
}
