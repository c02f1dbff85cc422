//! Chooses the next window of rows to request, so that an answer is neither too large nor misses late rows. Pure.
//!
//! A window always begins at the newest recorded stamp, never later. A logger that was offline uploads old rows, so a
//! window that was empty a minute ago may now hold a week of them. The window has no end (`until: "*"`) unless such
//! an answer proved too large. Then the search narrows between an end that is known to be too far and an end before
//! which there are no rows. Once rows come, the length of the window follows their density.

use super::Stamp;

/// A window is narrowed if its body is larger than this, in bytes.
pub const SOFT_BODY_LIMIT: usize = 8 * 1024 * 1024;
/// The number of rows that a window should hold while the site is far behind.
const TARGET_ROWS: i64 = 40_000;
/// The shortest window, in milliseconds.
const SHORTEST: i64 = 1_000;
/// The largest factor by which the length of a window may change.
const LARGEST_STEP: i64 = 4;

/// What is known about the rows after the cursor of one site. In memory only: losing it costs requests, never rows.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Search {
    /// A window up to here was empty.
    empty_until: Option<Stamp>,
    /// A window up to here was too large. For a window without end, this is the time of the request.
    too_far: Option<Stamp>,
    /// The next end that the received rows suggest. Tried once.
    hint: Option<Stamp>,
    /// Length of the next window, learned from the last one with rows.
    span: Option<i64>,
}

/// The end of the next window.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Window {
    pub until: Option<Stamp>,
    /// Whether it can be made shorter if it proves too large.
    pub can_narrow: bool,
}

impl Search {
    /// The window to request, from `from` on, at the time `now`.
    #[must_use]
    pub fn next(&self, from: Stamp, now: Stamp) -> Window {
        let open = Window { until: None, can_narrow: now.since(from) > SHORTEST };
        let low = self.empty_until.map_or(from, |empty| empty.max(from));
        let until = match (self.too_far, self.span) {
            (Some(far), _) => match self.hint {
                Some(hint) if low < hint && hint < far => hint,
                _ => low.shifted(far.since(low) / 2),
            },
            (None, Some(span)) => {
                // Grow over a gap: the part that was empty belongs to the window again, and costs nothing.
                let end = from.shifted(span);
                if self.empty_until.is_some_and(|empty| empty >= end) {
                    low.shifted(low.since(from) * (LARGEST_STEP - 1))
                } else {
                    end
                }
            }
            (None, None) => return open,
        };
        if until >= now {
            return open;
        }
        Window { until: Some(until), can_narrow: until.since(low) > SHORTEST }
    }

    /// The window was too large. `prefix` holds the stamps of the rows that arrived before reading stopped.
    ///
    /// Returns whether a narrower window makes sense. It does not if the answer holds rows outside of the window
    /// (then the backend ignores the bounds), or if no row arrived at all.
    #[must_use]
    pub fn narrow(&mut self, from: Stamp, window: Window, now: Stamp, prefix: &[Stamp]) -> bool {
        let end = window.until.unwrap_or(now);
        let (Some(first), Some(last)) = (prefix.iter().min(), prefix.iter().max()) else { return false };
        if *first < from.shifted(-SHORTEST) || window.until.is_some_and(|until| *last > until.shifted(SHORTEST)) {
            return false;
        }
        // If the rows come in order, a window up to half of the received rows fits. If they do not, the hint is only
        // a guess.
        let hint = prefix.get(prefix.len() / 2).copied().filter(|_| self.hint.is_none());
        // Rows have arrived in a window that was empty before.
        if self.empty_until.is_some_and(|empty| prefix.iter().any(|row| *row > from && *row <= empty)) {
            self.empty_until = None;
        }
        self.too_far = Some(end);
        self.hint = hint;
        self.span = None;
        end.since(self.empty_until.map_or(from, |empty| empty.max(from))) > SHORTEST
    }

    /// The window held no row newer than the cursor.
    pub fn was_empty(&mut self, window: Window) {
        self.hint = None;
        match window.until {
            Some(until) => {
                self.empty_until = Some(until);
                // The answer is no longer too large, or never was. Do not continue between two ends that have met.
                if self.too_far.is_some_and(|far| far.since(until) <= SHORTEST) {
                    self.too_far = None;
                }
            }
            // There are no rows after the cursor.
            None => *self = Self::default(),
        }
    }

    /// The window held `rows` new rows, all recorded. The cursor moved from `from` to `newest`.
    pub fn had_rows(&mut self, from: Stamp, newest: Stamp, window: Window, rows: usize) {
        let was_open = window.until.is_none();
        *self = Self::default();
        if was_open {
            return;
        }
        let covered = newest.since(from).max(SHORTEST);
        let rows = i64::try_from(rows).unwrap_or(i64::MAX).max(1);
        let fitting = covered.saturating_mul(TARGET_ROWS) / rows;
        self.span = Some(fitting.clamp(covered / LARGEST_STEP, covered.saturating_mul(LARGEST_STEP)).max(SHORTEST));
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const DAY: i64 = 24 * 60 * 60 * 1000;

    /// A backend with known rows.
    struct Backend {
        rows: Vec<Stamp>,
        most_rows: usize,
        descending: bool,
    }

    impl Backend {
        fn get(&self, from: Stamp, until: Option<Stamp>) -> Result<Vec<Stamp>, Vec<Stamp>> {
            let mut rows: Vec<_> = self
                .rows
                .iter()
                .copied()
                .filter(|row| *row >= from && until.is_none_or(|until| *row <= until))
                .collect();
            if self.descending {
                rows.reverse();
            }
            if rows.len() > self.most_rows {
                rows.truncate(self.most_rows);
                return Err(rows);
            }
            Ok(rows)
        }
    }

    /// Polls until no rows are left. Returns the rows found and the number of requests.
    fn poll_all(backend: &Backend, now: Stamp) -> (Vec<Stamp>, usize) {
        let (mut search, mut cursor, mut found) = (Search::default(), None::<Stamp>, Vec::new());
        for requests in 1..10_000 {
            let from = cursor.unwrap_or(Stamp::BEGINNING);
            let window = search.next(from, now);
            match backend.get(from, window.until) {
                Err(prefix) => assert!(search.narrow(from, window, now, &prefix), "{search:?} {window:?}"),
                Ok(rows) => {
                    let mut new: Vec<_> = rows.into_iter().filter(|row| Some(*row) > cursor).collect();
                    new.sort();
                    match new.last() {
                        None => search.was_empty(window),
                        Some(newest) => {
                            search.had_rows(from, *newest, window, new.len());
                            cursor = Some(*newest);
                        }
                    }
                    found.extend(new);
                    if window.until.is_none() {
                        return (found, requests);
                    }
                }
            }
        }
        panic!("the search does not end: {search:?}");
    }

    fn now() -> Stamp {
        Stamp::parse("202611").unwrap_or(Stamp::BEGINNING.shifted(9_800 * DAY))
    }

    #[test]
    fn a_site_that_is_not_far_behind_takes_one_request() {
        let rows = vec![now().shifted(-60_000), now().shifted(-1000)];
        let backend = Backend { rows: rows.clone(), most_rows: 100, descending: false };
        assert_eq!(poll_all(&backend, now()), (rows, 1));
    }

    #[test]
    fn two_million_rows_take_about_as_many_requests_as_there_are_windows() {
        for descending in [false, true] {
            let rows: Vec<_> = (0..2_000_000).map(|index| now().shifted((index - 2_000_000) * 60_000)).collect();
            let backend = Backend { rows: rows.clone(), most_rows: 200_000, descending };
            let (found, requests) = poll_all(&backend, now());
            assert!(found == rows, "every row, in order, once");
            assert!(requests < 80, "{requests} requests");
        }
    }

    #[test]
    fn a_gap_of_years_between_dense_rows_is_crossed_in_few_requests() {
        let old = (0..100_000).map(|index| now().shifted(-7_000 * DAY + index * 1000));
        let new = (0..100_000).map(|index| now().shifted(-2 * DAY + index * 1000));
        let rows: Vec<_> = old.chain(new).collect();
        let backend = Backend { rows: rows.clone(), most_rows: 80_000, descending: false };
        let (found, requests) = poll_all(&backend, now());
        assert!(found == rows);
        assert!(requests < 60, "{requests} requests");
    }

    #[test]
    fn a_backend_that_does_not_heed_the_window_is_noticed() {
        let mut search = Search::default();
        let from = now().shifted(-DAY);
        let window = Window { until: Some(now().shifted(-DAY / 2)), can_narrow: true };
        assert!(!search.narrow(from, window, now(), &[now()]));
        assert!(!search.narrow(from, window, now(), &[from.shifted(-DAY)]));
        assert!(!search.narrow(from, window, now(), &[]));
    }

    #[test]
    fn rows_that_come_where_there_were_none_can_be_narrowed_to() {
        let (from, mut search) = (now().shifted(-DAY), Search::default());
        // A window of an hour is empty. Then the logger uploads that hour: more rows than fit into one answer.
        search.was_empty(Window { until: Some(from.shifted(DAY / 24)), can_narrow: true });
        let rows: Vec<_> = (1..1_000).map(|index| from.shifted(index * 3_000)).collect();
        let backend = Backend { rows: rows.clone(), most_rows: 100, descending: false };
        let (mut cursor, mut found) = (from, Vec::new());
        for _ in 0..200 {
            let window = search.next(cursor, now());
            match backend.get(cursor, window.until) {
                Err(prefix) => assert!(search.narrow(cursor, window, now(), &prefix), "{search:?} {window:?}"),
                Ok(rows) => {
                    let new: Vec<_> = rows.into_iter().filter(|row| *row > cursor).collect();
                    match new.last() {
                        None => search.was_empty(window),
                        Some(newest) => {
                            search.had_rows(cursor, *newest, window, new.len());
                            cursor = *newest;
                        }
                    }
                    found.extend(new);
                    if window.until.is_none() {
                        break;
                    }
                }
            }
        }
        assert_eq!(found, rows);
    }

    #[test]
    fn one_wrong_answer_does_not_hold_the_search_up() {
        let (from, mut search) = (now().shifted(-DAY), Search::default());
        let window = search.next(from, now());
        assert!(search.narrow(from, window, now(), &[from.shifted(1), from.shifted(2)]));
        for _ in 0..60 {
            let window = search.next(from, now().shifted(1000));
            if window.until.is_none() {
                return;
            }
            search.was_empty(window);
        }
        panic!("never open again: {search:?}");
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn every_row_is_found_once_and_in_order(
            bursts in prop::collection::vec((1_i64..9_000, 1_usize..400, 1_i64..100_000), 1..6),
            most_rows in 60_usize..500,
            descending: bool,
        ) {
            let mut rows: Vec<_> = bursts
                .iter()
                .flat_map(|(days, count, step)| (0..*count).map(move |index| now().shifted(-days * DAY + i64::try_from(index).unwrap() * step.max(&20))))
                .collect();
            rows.sort();
            rows.dedup();
            let backend = Backend { rows: rows.clone(), most_rows, descending };
            let (found, _) = poll_all(&backend, now());
            prop_assert_eq!(found, rows);
        }
    }
}
