//! Finds out how many requests a service takes at once: more as long as that makes it no slower, fewer when it is
//! overloaded (additive increase, multiplicative decrease, as TCP does). Pure: time is an argument.

use std::time::Duration;

use tokio::time::Instant;

/// The limit is looked at again after one request's time, but not more often than this.
const SHORTEST_WINDOW: Duration = Duration::from_millis(50);
/// A window is slow if its requests took longer than those of the best window by this factor, and by more than noise.
const SLOWER: f64 = 1.5;
const NOISE: f64 = 0.01;
/// How much the best duration grows with each window: a service may become slower for other reasons.
const FORGETS: f64 = 1.0002;
/// A duration counts as no more than so many of the best ones: a few sites with long answers say nothing of the service.
const OUTLIER: f64 = 4.0;
const SLOW_DOWN: f64 = 0.9;
const OVERLOADED: f64 = 0.5;

/// How many requests may be in flight at once.
#[derive(Debug)]
pub struct Adaptive {
    limit: usize,
    lowest: usize,
    highest: usize,
    /// Whether slower answers lower the limit, too.
    heeds_duration: bool,
    /// Until the service is slow or overloaded for the first time, the limit doubles.
    is_climbing: bool,
    /// The mean duration in the best window, in seconds.
    best: Option<f64>,
    window: Window,
    /// When the limit was last lowered. Requests from before say nothing of the lower limit.
    lowered: Option<Instant>,
}

#[derive(Debug, Default)]
struct Window {
    began: Option<Instant>,
    seconds: f64,
    requests: usize,
    most_in_flight: usize,
}

/// A request that has ended.
#[derive(Clone, Copy, Debug)]
pub struct Ended {
    pub began: Instant,
    /// How many were in flight, it included.
    pub in_flight: usize,
    /// The service says that it is overloaded, or does not answer.
    pub is_overload: bool,
}

impl Adaptive {
    /// Begins with `first` at once, and stays between `lowest` and `highest`.
    #[must_use]
    pub fn new(first: usize, lowest: usize, highest: usize) -> Self {
        let highest = highest.max(1);
        let limit = first.min(highest);
        let lowest = lowest.min(highest);
        let (heeds_duration, is_climbing) = (true, true);
        Self {
            limit,
            lowest,
            highest,
            heeds_duration,
            is_climbing,
            best: None,
            window: Window::default(),
            lowered: None,
        }
    }

    /// As [`new`](Self::new), for a service that says when it is overloaded.
    #[must_use]
    pub fn for_overload(first: usize, lowest: usize, highest: usize) -> Self {
        Self { heeds_duration: false, ..Self::new(first, lowest, highest) }
    }

    #[must_use]
    pub fn limit(&self) -> usize {
        self.limit
    }

    /// Takes note of a request that ended `now`.
    pub fn note(&mut self, ended: Ended, now: Instant) {
        if self.lowered.is_some_and(|lowered| ended.began < lowered) {
            return;
        }
        if ended.is_overload {
            return self.lower(OVERLOADED, now);
        }
        let seconds = (now - ended.began).as_secs_f64();
        let seconds = self.best.map_or(seconds, |best| seconds.min((best + NOISE) * OUTLIER));
        let window = &mut self.window;
        let began = *window.began.get_or_insert(ended.began);
        window.seconds += seconds;
        window.requests += 1;
        window.most_in_flight = window.most_in_flight.max(ended.in_flight);
        let length = Duration::from_secs_f64(self.best.unwrap_or_default()).max(SHORTEST_WINDOW);
        if now - began >= length {
            self.end_window(now);
        }
    }

    fn end_window(&mut self, now: Instant) {
        let Window { seconds, requests, most_in_flight, .. } = std::mem::take(&mut self.window);
        self.window.began = Some(now);
        let mean = seconds / requests as f64;
        let best = self.best.map_or(mean, |best| mean.min(best * FORGETS));
        self.best = Some(best);
        if self.heeds_duration && mean > (best * SLOWER).max(best + NOISE) {
            self.lower(SLOW_DOWN, now)
        } else {
            self.raise(most_in_flight)
        }
    }

    fn raise(&mut self, most_in_flight: usize) {
        if most_in_flight >= self.limit {
            let raised = if self.is_climbing { self.limit * 2 } else { self.limit + 1 };
            self.limit = raised.min(self.highest);
        }
    }

    fn lower(&mut self, factor: f64, now: Instant) {
        self.limit = ((self.limit as f64 * factor) as usize).max(self.lowest);
        self.is_climbing = false;
        self.lowered = Some(now);
        self.window = Window::default();
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const MS: Duration = Duration::from_millis(1);

    /// A service that takes `fits` requests at once in 50 ms, and is slower in proportion with more of them. Returns the
    /// limits after each round.
    fn rounds(adaptive: &mut Adaptive, fits: usize, rounds: usize, began: &mut Instant) -> Vec<usize> {
        let round = |_| {
            let in_flight = adaptive.limit();
            let took = 50 * MS * u32::try_from(in_flight.max(fits)).unwrap() / u32::try_from(fits).unwrap();
            let now = *began + took;
            (0..in_flight).for_each(|_| adaptive.note(Ended { began: *began, in_flight, is_overload: false }, now));
            *began = now;
            adaptive.limit()
        };
        (0..rounds).map(round).collect()
    }

    #[test]
    fn the_limit_doubles_until_the_service_is_slower_and_then_stays_near() {
        let (mut adaptive, mut now) = (Adaptive::new(16, 4, 256), Instant::now());
        assert_eq!(rounds(&mut adaptive, 1_000, 6, &mut now), [32, 64, 128, 256, 256, 256]);
        let (mut adaptive, mut now) = (Adaptive::new(16, 4, 256), Instant::now());
        let limits = rounds(&mut adaptive, 50, 200, &mut now);
        assert!(limits.iter().skip(10).all(|limit| (30..=200).contains(limit)), "{limits:?}");
    }

    #[test]
    fn an_overload_halves_it_once_for_all_that_were_in_flight() {
        let (mut adaptive, now) = (Adaptive::new(64, 4, 256), Instant::now());
        let ended = Ended { began: now, in_flight: 64, is_overload: true };
        (1..=64).for_each(|ms| adaptive.note(ended, now + ms * MS));
        assert_eq!(adaptive.limit(), 32);
        for _ in 0..10 {
            let began = adaptive.lowered.unwrap() + MS;
            adaptive.note(Ended { began, ..ended }, began + MS);
        }
        assert_eq!(adaptive.limit(), 4, "not lower than this");
        let mut began = adaptive.lowered.unwrap() + MS;
        assert_eq!(rounds(&mut adaptive, 1_000, 4, &mut began), [5, 6, 7, 8], "afterwards one by one");
    }

    #[test]
    fn whoever_does_not_use_it_does_not_raise_it() {
        let (mut adaptive, mut now) = (Adaptive::new(16, 4, 256), Instant::now());
        for _ in 0..50 {
            adaptive.note(Ended { began: now, in_flight: 15, is_overload: false }, now + 60 * MS);
            now += 60 * MS;
        }
        assert_eq!(adaptive.limit(), 16);
    }

    #[test]
    fn one_slow_answer_among_many_says_nothing() {
        let (mut adaptive, mut now) = (Adaptive::new(16, 4, 64), Instant::now());
        rounds(&mut adaptive, 1_000, 20, &mut now);
        for _ in 0..20 {
            for number in 0..64 {
                let took = if number == 0 { 2_000 } else { 50 } * MS;
                adaptive.note(Ended { began: now, in_flight: 64, is_overload: false }, now + took);
            }
            now += 2_000 * MS;
        }
        assert_eq!(adaptive.limit(), 64);
    }

    proptest! {
        #[test]
        fn the_limit_stays_between_its_bounds(
            first in 1_usize..300, lowest in 1_usize..20, highest in 1_usize..300,
            ended in prop::collection::vec((0_u32..500, 1_usize..300, prop::bool::weighted(0.1)), 0..300)
        ) {
            let (mut adaptive, mut now) = (Adaptive::new(first, lowest, highest), Instant::now());
            for (ms, in_flight, is_overload) in ended {
                let began = now;
                now += ms * MS;
                adaptive.note(Ended { began, in_flight, is_overload }, now);
                let limit = adaptive.limit();
                prop_assert!(1 <= limit && limit <= highest && limit >= lowest.min(highest).min(first));
            }
        }
    }
}
