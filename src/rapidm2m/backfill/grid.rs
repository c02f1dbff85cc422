//! Chooses the windows of a backfill, and where its messages begin and end, so that the same rows always make the
//! same messages. Pure.
//!
//! This must hold whenever the rows are requested, and wherever an earlier run was cut off. So a message never
//! crosses a time unit, and the unit depends only on the rows: a UTC day; an hour, if one answer cannot hold the day;
//! a minute, if it cannot hold the hour. Windows are whole units, except at both ends of the range. A unit that is
//! partly recorded is requested again from its beginning. Only the number of days in a window may vary: it follows
//! the size of the answers.

use std::ops::Range;

use crate::rapidm2m::{Stamp, window::SOFT_BODY_LIMIT, wire::Row};

/// The largest window, in days: with empty windows of this size a year takes a dozen requests.
const MOST_DAYS: i64 = 32;

/// A range of time, from its first moment (included) to its end (excluded).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span {
    pub from: Stamp,
    pub until: Stamp,
}

/// The time unit that a message never crosses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Unit {
    Day,
    Hour,
    Minute,
}

impl Unit {
    const fn millis(self) -> i64 {
        match self {
            Self::Day => 24 * 60 * 60 * 1000,
            Self::Hour => 60 * 60 * 1000,
            Self::Minute => 60 * 1000,
        }
    }

    /// The beginning of the unit that contains `at`.
    fn floor(self, at: Stamp) -> Stamp {
        at.shifted(-at.millis().rem_euclid(self.millis()))
    }
}

/// One request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Window {
    pub span: Span,
    unit: Unit,
}

/// The windows of one range. What it learns about the size of answers can be lost without harm.
#[derive(Clone, Debug)]
pub struct Grid {
    range: Span,
    /// The size of the next window, in days.
    days: i64,
    /// The day that is requested by hours.
    by_hours: Option<Span>,
    /// The hour that is requested by minutes.
    by_minutes: Option<Span>,
}

impl Grid {
    #[must_use]
    pub fn new(range: Span) -> Self {
        Self { range, days: 1, by_hours: None, by_minutes: None }
    }

    /// The window to request when everything before `position` is recorded. If `position` lies within a unit, the
    /// window begins before it.
    #[must_use]
    pub fn window(&self, position: Stamp) -> Window {
        // Check both ends: another process may have begun the range again.
        let is_in = |span: Option<Span>| span.is_some_and(|span| span.from <= position && position < span.until);
        let (unit, units) = match (is_in(self.by_hours), is_in(self.by_minutes)) {
            (true, true) => (Unit::Minute, 1),
            (true, false) => (Unit::Hour, 1),
            (false, _) => (Unit::Day, self.days),
        };
        let begin = unit.floor(position);
        let span = Span { from: begin.max(self.range.from), until: begin.shifted(units * unit.millis()) };
        Window { span: Span { until: span.until.min(self.range.until), ..span }, unit }
    }

    /// The answer would be too large. Returns whether a shorter window can be requested.
    #[must_use]
    pub fn narrow(&mut self, window: &Window) -> bool {
        match window.unit {
            Unit::Day if self.days > 1 => self.days /= 2,
            Unit::Day => self.by_hours = Some(window.span),
            Unit::Hour => self.by_minutes = Some(window.span),
            Unit::Minute => return false,
        }
        true
    }

    /// The answer had this many bytes and could be read. A small answer makes the next window longer, a large one
    /// makes it shorter.
    pub fn fitted(&mut self, window: &Window, bytes: usize) {
        if window.unit != Unit::Day {
            return;
        }
        if bytes < SOFT_BODY_LIMIT / 4 {
            self.days = (self.days * 2).min(MOST_DAYS);
        } else if bytes > SOFT_BODY_LIMIT / 2 {
            self.days = (self.days / 2).max(1);
        }
    }
}

impl Window {
    /// Whether [`Grid::narrow`] would find a shorter window.
    #[must_use]
    pub fn can_narrow(&self) -> bool {
        self.unit != Unit::Minute
    }

    /// Assigns the rows to units. The rows must be sorted and lie in the window. Units without rows are left out.
    #[must_use]
    pub fn units(&self, rows: &[Row]) -> Vec<(Span, Range<usize>)> {
        let mut units = Vec::new();
        let mut next = 0;
        while let Some(row) = rows.get(next) {
            let begin = self.unit.floor(row.stamp);
            let end = begin.shifted(self.unit.millis());
            let span = Span { from: begin.max(self.span.from), until: end.min(self.span.until) };
            let first = next;
            next += rows[next..].partition_point(|row| row.stamp < span.until);
            units.push((span, first..next));
        }
        units
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::rapidm2m::Rows;

    const HOUR: i64 = Unit::Hour.millis();
    const DAY: i64 = Unit::Day.millis();

    /// 2000-01-01 plus `millis`.
    fn at(millis: i64) -> Stamp {
        Stamp::BEGINNING.shifted(millis)
    }

    fn span(from: i64, until: i64) -> Span {
        Span { from: at(from), until: at(until) }
    }

    fn rows(stamps: &[i64]) -> Vec<Row> {
        let json: Vec<_> = stamps.iter().map(|stamp| (at(*stamp).to_string(), 1)).collect();
        Rows::read(serde_json::to_vec(&json).unwrap().into(), 1).unwrap().rows
    }

    /// Goes through a range like the connector. An answer holds at most `most_rows` rows, a message `per_message`.
    /// `cut_after` says after how many messages each run ends. Returns the messages (their unit and rows) and the
    /// number of requests.
    fn go_through(
        range: Span,
        stamps: &[i64],
        most_rows: usize,
        per_message: usize,
        cut_after: usize,
    ) -> (Vec<(Span, Vec<Stamp>)>, usize) {
        let (mut grid, mut position, mut requests) = (Grid::new(range), range.from, 0);
        let (mut messages, mut left): (Vec<(Span, Vec<Stamp>)>, usize) = (Vec::new(), cut_after);
        while position < range.until {
            requests += 1;
            assert!(requests < 100_000, "no progress at {}", position.rfc3339());
            let window = grid.window(position);
            let is_in = |stamp: Stamp| window.span.from <= stamp && stamp < window.span.until;
            assert!(is_in(position) && range.from <= window.span.from && window.span.until <= range.until);
            let answer: Vec<_> = stamps.iter().copied().filter(|stamp| is_in(at(*stamp))).collect();
            if answer.len() > most_rows && grid.narrow(&window) {
                continue;
            }
            let new: Vec<_> = answer.iter().copied().filter(|stamp| at(*stamp) >= position).collect();
            let new = rows(&new);
            grid.fitted(&window, answer.len() * (SOFT_BODY_LIMIT / most_rows));
            let parts = window.units(&new).into_iter().flat_map(|(unit, of_unit)| {
                let stamps = |part: &[Row]| part.iter().map(|row| row.stamp).collect::<Vec<_>>();
                new[of_unit].chunks(per_message).map(move |part| (unit, stamps(part))).collect::<Vec<_>>()
            });
            let parts: Vec<_> = parts.take(left).collect();
            left -= parts.len();
            position = match parts.last() {
                Some((_, stamps)) if left == 0 => stamps.last().unwrap().shifted(1),
                _ => window.span.until,
            };
            messages.extend(parts);
            if left == 0 {
                // A new process knows only the position.
                (grid, left) = (Grid::new(range), cut_after);
            }
        }
        (messages, requests)
    }

    #[test]
    fn windows_are_whole_days_but_at_the_ends_of_the_range() {
        let grid = Grid::new(span(HOUR, 2 * DAY + HOUR));
        assert_eq!(grid.window(at(HOUR)).span, span(HOUR, DAY));
        assert_eq!(
            grid.window(at(5 * HOUR)).span,
            span(HOUR, DAY),
            "a day that is recorded in part is asked for whole"
        );
        assert_eq!(grid.window(at(DAY)).span, span(DAY, 2 * DAY));
        assert_eq!(grid.window(at(2 * DAY)).span, span(2 * DAY, 2 * DAY + HOUR));
    }

    #[test]
    fn a_day_that_is_too_large_is_asked_for_by_hours_and_an_hour_by_minutes() {
        let mut grid = Grid::new(span(0, 9 * DAY));
        let day = grid.window(at(DAY));
        assert!(grid.narrow(&day));
        let hour = grid.window(at(DAY + HOUR / 2));
        assert_eq!(hour.span, span(DAY, DAY + HOUR));
        assert!(hour.can_narrow() && grid.narrow(&hour));
        let minute = grid.window(at(DAY + HOUR / 2));
        assert_eq!(minute.span, span(DAY + HOUR / 2, DAY + HOUR / 2 + 60_000));
        assert!(!minute.can_narrow() && !grid.narrow(&minute));
        assert_eq!(grid.window(at(DAY + HOUR)).span, span(DAY + HOUR, DAY + 2 * HOUR));
        assert_eq!(grid.window(at(2 * DAY)).span, span(2 * DAY, 3 * DAY));
    }

    #[test]
    fn years_without_rows_take_few_requests() {
        let (messages, requests) = go_through(span(0, 3_653 * DAY), &[], 100, 10, 10);
        assert!(messages.is_empty() && requests < 130, "{requests} requests");
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn the_same_rows_make_the_same_messages_wherever_it_is_cut(
            bursts in prop::collection::vec((0_i64..20, 0_i64..DAY, 1_usize..60, 1_i64..HOUR), 0..6),
            from in 0_i64..3 * DAY,
            length in 1_i64..20 * DAY,
            per_message in 1_usize..20,
            cut_after in 1_usize..9,
        ) {
            let mut stamps: Vec<i64> = bursts
                .iter()
                .flat_map(|(day, start, count, step)| {
                    (0..*count).map(move |index| day * DAY + start + i64::try_from(index).unwrap() * step)
                })
                .collect();
            stamps.sort_unstable();
            stamps.dedup();
            let range = span(from, from + length);
            let in_range: Vec<_> =
                stamps.iter().map(|stamp| at(*stamp)).filter(|stamp| range.from <= *stamp && *stamp < range.until).collect();
            let (at_once, _) = go_through(range, &stamps, 40, per_message, usize::MAX);
            let (in_pieces, _) = go_through(range, &stamps, 40, per_message, cut_after);
            prop_assert!(at_once.iter().all(|(unit, rows)| rows.iter().all(|row| unit.from <= *row && *row < unit.until)));
            let all: Vec<_> = at_once.iter().flat_map(|(_, rows)| rows.iter().copied()).collect();
            prop_assert_eq!(all, in_range);
            prop_assert_eq!(in_pieces, at_once);
        }
    }
}
