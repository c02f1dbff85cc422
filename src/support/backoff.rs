//! The only back-off of the connector: decides how long to wait after a failure, and remembers failures until the wait
//! ends.
//!
//! A key says what a failure concerns: a hub, a device, or a whole service (`()`).

use std::{
    hash::Hash,
    num::NonZeroUsize,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use lru::LruCache;
use tokio::time::Instant;

/// Limit for a wait that a service requests (`Retry-After`). A longer request is an error of its sender.
pub const LONGEST_REQUESTED: Duration = Duration::from_secs(60 * 60);
/// Callers that share a requested wait return spread over this part of it.
const REQUESTED_JITTER: f64 = 0.1;
/// Keys that one memory holds. The key whose failure is oldest is forgotten first.
const MAX_KEYS: NonZeroUsize = NonZeroUsize::new(10_000).unwrap();

/// How waits grow: from `first`, doubling with each failure in a row, to `longest`.
#[derive(Clone, Copy, Debug)]
pub struct Policy {
    pub first: Duration,
    pub longest: Duration,
    pub jitter: Jitter,
}

/// Prevents callers that failed together from retrying together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Jitter {
    None,
    /// A random wait between 0 and the full one.
    /// <https://aws.amazon.com/blogs/architecture/exponential-backoff-and-jitter/>
    Full,
}

impl Policy {
    /// Waits that are exact.
    #[must_use]
    pub const fn exact(first: Duration, longest: Duration) -> Self {
        Self { first, longest, jitter: Jitter::None }
    }

    /// Waits that are random.
    #[must_use]
    pub const fn jittered(first: Duration, longest: Duration) -> Self {
        Self { first, longest, jitter: Jitter::Full }
    }

    /// The wait after this many failures in a row. `failures` counts from 1.
    #[must_use]
    pub fn wait(&self, failures: u32) -> Duration {
        let factor = 2_u32.saturating_pow(failures.saturating_sub(1));
        let wait = self.first.saturating_mul(factor).min(self.longest);
        match self.jitter {
            Jitter::None => wait,
            Jitter::Full => wait.mul_f64(fastrand::f64()),
        }
    }

    /// The wait that the service requests, otherwise the one after this many failures in a row. A requested wait of
    /// zero counts as no request.
    #[must_use]
    pub fn wait_or(&self, requested: Option<Duration>, failures: u32) -> Duration {
        match requested.filter(|wait| !wait.is_zero()).map(|wait| wait.min(LONGEST_REQUESTED)) {
            None => self.wait(failures),
            Some(wait) if self.jitter == Jitter::None => wait,
            Some(wait) => wait.mul_f64(1.0 + REQUESTED_JITTER * fastrand::f64()),
        }
    }
}

/// A failure, and the time until which its key is not tried.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failed<E> {
    pub error: E,
    /// Failures in a row.
    pub failures: u32,
    pub until: Instant,
    /// The service requested the wait.
    pub is_requested: bool,
    at: Instant,
}

impl<E> Failed<E> {
    #[must_use]
    pub fn is_over(&self) -> bool {
        self.until <= Instant::now()
    }

    /// Whether it is no failure, but a wait by [`Backoff::hold`].
    #[must_use]
    pub fn is_held(&self) -> bool {
        self.failures == u32::MAX
    }

    #[must_use]
    pub fn left(&self) -> Duration {
        self.until.saturating_duration_since(Instant::now())
    }
}

/// Remembers failures by key.
#[derive(Debug)]
pub struct Backoff<K: Hash + Eq, E> {
    policy: Policy,
    known: Mutex<LruCache<K, Failed<E>>>,
}

impl<K: Hash + Eq, E: Clone> Backoff<K, E> {
    #[must_use]
    pub fn new(policy: Policy) -> Self {
        Self { policy, known: Mutex::new(LruCache::new(MAX_KEYS)) }
    }

    /// Why the key is not tried now.
    #[must_use]
    pub fn holding(&self, key: &K) -> Option<Failed<E>> {
        self.last(key).filter(|failed| !failed.is_over())
    }

    /// Why the key is not tried now. When the wait has ended, only the caller that asks first tries: until its result
    /// is recorded, but no longer than `patience`, the others still get the last failure.
    #[must_use]
    pub fn holding_or_claim(&self, key: &K, patience: Duration) -> Option<Failed<E>> {
        let mut known = self.known();
        let failed = known.get_mut(key)?;
        if failed.is_over() {
            (failed.until, failed.is_requested) = (Instant::now() + patience, false);
            return None;
        }
        Some(failed.clone())
    }

    /// The last failure since a success, even if its wait has ended.
    #[must_use]
    pub fn last(&self, key: &K) -> Option<Failed<E>> {
        self.known().get(key).cloned()
    }

    /// Records that an attempt failed that began at `began`. Attempts that were in flight together count once: one
    /// that began before the last failure does not count. A longer wait that the service requests holds in any case.
    /// Returns whether the failure counts.
    pub fn failed(&self, key: K, error: E, requested: Option<Duration>, began: Instant) -> bool {
        let now = Instant::now();
        let requested = requested.filter(|wait| !wait.is_zero());
        let mut known = self.known();
        let last = known.get(&key);
        let counts = last.is_none_or(|last| last.at <= began);
        let failures = last.map_or(0, |last| last.failures).saturating_add(u32::from(counts));
        let until = now + self.policy.wait_or(requested, failures);
        let held = last.filter(|last| last.until >= until).map(|last| (last.until, last.is_requested));
        if counts || requested.is_some() && held.is_none() {
            let (until, is_requested) = held.unwrap_or((until, requested.is_some()));
            known.put(key, Failed { error, failures, until, is_requested, at: now });
        }
        counts
    }

    /// Stops trying the key for this time, whatever failed before.
    pub fn hold(&self, key: K, error: E, wait: Duration) {
        let now = Instant::now();
        self.known().put(key, Failed { error, failures: u32::MAX, until: now + wait, is_requested: false, at: now });
    }

    /// Records a success. Only a wait that the service requested continues.
    pub fn succeeded(&self, key: &K) {
        let mut known = self.known();
        match known.peek_mut(key) {
            Some(last) if last.is_requested && !last.is_over() => last.failures = 0,
            Some(_) => drop(known.pop(key)),
            None => {}
        }
    }

    /// Forgets all failures, but keeps the waits that services requested.
    pub fn forget(&self) {
        let mut known = self.known();
        let waits: Vec<_> = std::iter::from_fn(|| known.pop_lru()).collect();
        for (key, failed) in waits.into_iter().filter(|(_, failed)| failed.is_requested && !failed.is_over()) {
            known.put(key, failed);
        }
    }

    /// Forgets the failures of one key, requested waits included.
    pub fn forget_key(&self, key: &K) {
        self.known().pop(key);
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.known().is_empty()
    }

    fn known(&self) -> MutexGuard<'_, LruCache<K, Failed<E>>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use tokio::time::advance;

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);
    const EXACT: Policy = Policy::exact(SECOND, Duration::from_secs(10));

    fn backoff() -> Backoff<&'static str, u8> {
        Backoff::new(EXACT)
    }

    fn left(backoff: &Backoff<&'static str, u8>, key: &'static str) -> Option<u64> {
        backoff.holding(&key).map(|failed| failed.left().as_secs())
    }

    #[tokio::test(start_paused = true)]
    async fn after_a_wait_one_caller_tries_first() {
        let backoff = backoff();
        let is_held = || backoff.holding_or_claim(&"hub", 3 * SECOND).is_some();
        assert!(!is_held() && !is_held(), "nothing failed yet");
        backoff.failed("hub", 1, None, Instant::now());
        assert!(is_held());
        advance(SECOND).await;
        assert!(!is_held() && is_held() && is_held());
        backoff.failed("hub", 1, None, Instant::now());
        advance(SECOND).await;
        assert!(is_held(), "it counts as the second failure");
        advance(2 * SECOND).await;
        assert!(!is_held() && is_held());
        advance(3 * SECOND).await;
        assert!(!is_held() && is_held(), "nobody learned the result of an attempt that was dropped");
        backoff.succeeded(&"hub");
        assert!(!is_held() && !is_held());
    }

    proptest! {
        #[test]
        fn waits_double_to_the_longest_and_jitter_only_shortens_them(failures in 1_u32.., first in 0_u64..1000, longest in 0_u64..10_000) {
            let (first, longest) = (Duration::from_millis(first), Duration::from_millis(longest));
            let (exact, jittered) = (Policy::exact(first, longest), Policy::jittered(first, longest));
            prop_assert_eq!(exact.wait(1), first.min(longest));
            prop_assert!(exact.wait(failures) <= exact.wait(failures.saturating_add(1)));
            prop_assert!(exact.wait(failures.saturating_add(1)) <= (exact.wait(failures) * 2).max(first));
            prop_assert!(exact.wait(u32::MAX) <= longest && jittered.wait(failures) <= exact.wait(failures));
        }

        #[test]
        fn a_requested_wait_is_kept_up_to_the_limit(requested in 1_u64.., failures in 1_u32..) {
            let requested = Duration::from_secs(requested);
            let kept = requested.min(LONGEST_REQUESTED);
            prop_assert_eq!(EXACT.wait_or(Some(requested), failures), kept);
            let jittered = Policy { jitter: Jitter::Full, ..EXACT }.wait_or(Some(requested), failures);
            prop_assert!(kept <= jittered && jittered <= kept.mul_f64(1.0 + REQUESTED_JITTER));
            prop_assert_eq!(EXACT.wait_or(Some(Duration::ZERO), failures), EXACT.wait(failures));
        }
    }

    #[tokio::test(start_paused = true)]
    async fn waits_grow_with_failures_in_a_row_and_end_with_a_success() {
        let backoff = backoff();
        let mut waits = Vec::new();
        for _ in 0..6 {
            backoff.failed("hub", 1, None, Instant::now());
            waits.push(left(&backoff, "hub").unwrap());
            advance(Duration::from_secs(10)).await;
            assert_eq!(left(&backoff, "hub"), None);
        }
        assert_eq!(waits, [1, 2, 4, 8, 10, 10]);
        assert_eq!(backoff.last(&"hub").unwrap().failures, 6);
        backoff.succeeded(&"hub");
        assert!(backoff.is_empty());
        backoff.failed("hub", 1, None, Instant::now());
        assert_eq!((left(&backoff, "hub"), left(&backoff, "other")), (Some(1), None));
    }

    #[tokio::test(start_paused = true)]
    async fn attempts_that_were_in_flight_together_count_once() {
        let backoff = backoff();
        let began = Instant::now();
        for _ in 0..1000 {
            advance(Duration::from_millis(1)).await;
            backoff.failed("hub", 1, None, began);
        }
        // The attempt began before the last failure and failed late.
        advance(Duration::from_secs(60)).await;
        assert!(!backoff.failed("hub", 1, None, began));
        assert_eq!(backoff.last(&"hub").unwrap().failures, 1);
        assert!(backoff.failed("hub", 2, None, Instant::now()));
        let last = backoff.last(&"hub").unwrap();
        assert_eq!((last.error, last.failures), (2, 2));
    }

    #[tokio::test(start_paused = true)]
    async fn a_requested_wait_outlives_a_success_and_is_only_made_longer() {
        let backoff = backoff();
        backoff.failed("hub", 1, Some(Duration::from_secs(60)), Instant::now());
        backoff.failed("hub", 2, Some(Duration::from_secs(30)), Instant::now());
        backoff.failed("hub", 3, None, Instant::now());
        assert_eq!(left(&backoff, "hub"), Some(60));
        backoff.failed("hub", 4, Some(Duration::from_secs(90)), Instant::now());
        backoff.failed("device", 5, None, Instant::now());
        backoff.succeeded(&"hub");
        backoff.forget();
        assert_eq!((left(&backoff, "hub"), left(&backoff, "device")), (Some(90), None));
        advance(Duration::from_secs(90)).await;
        backoff.forget();
        assert!(backoff.is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn a_key_can_be_held_and_let_go() {
        let backoff = backoff();
        backoff.hold("hub", 7, Duration::from_secs(100));
        assert_eq!(backoff.holding(&"hub").map(|failed| (failed.error, failed.failures)), Some((7, u32::MAX)));
        backoff.forget_key(&"hub");
        assert_eq!(backoff.holding(&"hub"), None);
    }
}
