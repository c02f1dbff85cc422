//! Computes when a timer runs: an NCRONTAB expression or a time span, in UTC.

use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use croner::{
    Cron,
    parser::{CronParser, Year},
};

use super::time_span;

const NAMES: [&str; 19] = [
    "JAN", "FEB", "MAR", "APR", "MAY", "JUN", "JUL", "AUG", "SEP", "OCT", "NOV", "DEC", "SUN", "MON", "TUE", "WED",
    "THU", "FRI", "SAT",
];
/// More frequent schedules are not monitored: their `ScheduleStatus` is `null`.
const MONITORED_FROM: TimeDelta = TimeDelta::minutes(1);
/// Number of occurrences that decide how frequent a schedule is.
const LOOKED_AT: usize = 5;

/// A timer's schedule.
#[derive(Clone, Debug)]
pub enum Schedule {
    Cron(Box<Cron>),
    Every(Duration),
}

impl Schedule {
    /// Reads `sec min hour day month weekday`, the same without seconds, or a time span.
    ///
    /// # Errors
    /// Says what is wrong with the text. Syntax that the host's parser does not have (`L`, `W`, `#`, `?`, `@daily`,
    /// weekday 7) is refused.
    pub fn parse(text: &str) -> Result<Self, String> {
        if text.contains(':') {
            return time_span::parse(text)
                .map(Self::Every)
                .ok_or_else(|| format!("{text:?} is not a time span hh:mm:ss"));
        }
        let refused = |problem: &str| Err(format!("{text:?} is not an NCRONTAB expression: {problem}"));
        let fields: Vec<&str> = text.split_whitespace().collect();
        if !(5..=6).contains(&fields.len()) {
            return refused("it takes 6 fields (sec min hour day month weekday), or 5 without the seconds");
        }
        let mut plain = Vec::new();
        for field in &fields {
            if !field.chars().all(|letter| letter.is_ascii_alphanumeric() || "*,-/".contains(letter)) {
                return refused(&format!("{field:?} has a character that is none of * , - / or a letter or digit"));
            }
            if field.split(',').any(|item| item.starts_with('/')) {
                return refused(&format!("{field:?} steps from nothing"));
            }
            plain.push(short_names(field).ok_or_else(|| format!("{text:?}: {field:?} has an unknown name"))?);
        }
        let weekday = plain.last().map(String::as_str).unwrap_or_default();
        if weekday.split(|letter: char| !letter.is_ascii_digit()).any(|number| number == "7") {
            return refused("weekdays are 0 (Sunday) to 6");
        }
        // The host requires both day AND weekday to match, and reads `5/10` as "from 5 in steps of 10".
        let parser = CronParser::builder().year(Year::Disallowed).dom_and_dow(true).sloppy_ranges(true).build();
        let cron = parser
            .parse(&plain.join(" "))
            .map_err(|error| format!("{text:?} is not an NCRONTAB expression: {error}"))?;
        let schedule = Self::Cron(Box::new(cron));
        if schedule.next(Utc::now()).is_none() {
            return refused("it never occurs");
        }
        Ok(schedule)
    }

    /// The first occurrence after `time`.
    pub fn next(&self, time: DateTime<Utc>) -> Option<DateTime<Utc>> {
        match self {
            Self::Cron(cron) => cron.find_next_occurrence(&time, false).ok(),
            Self::Every(interval) => time.checked_add_signed(TimeDelta::from_std(*interval).ok()?),
        }
    }

    /// The last occurrence before `time`.
    pub fn previous(&self, time: DateTime<Utc>) -> Option<DateTime<Utc>> {
        match self {
            Self::Cron(cron) => cron.find_previous_occurrence(&time, false).ok(),
            Self::Every(interval) => time.checked_sub_signed(TimeDelta::from_std(*interval).ok()?),
        }
    }

    /// Whether the host keeps a `ScheduleStatus` for this schedule.
    pub fn is_monitored(&self, now: DateTime<Utc>) -> bool {
        let occurrences = std::iter::successors(self.next(now), |time| self.next(*time));
        let occurrences: Vec<_> = occurrences.take(LOOKED_AT).collect();
        occurrences.windows(2).all(|pair| pair[1] - pair[0] >= MONITORED_FROM)
    }

    /// `Schedule.AdjustForDST` of the timer's envelope.
    pub fn adjusts_for_dst(&self) -> bool {
        matches!(self, Self::Cron(_))
    }
}

/// Month and weekday names may be written in full (`January`). The parser accepts only their first three letters.
fn short_names(field: &str) -> Option<String> {
    let mut out = String::new();
    for word in field.split_inclusive(|letter: char| !letter.is_ascii_alphabetic()) {
        let name = word.trim_end_matches(|letter: char| !letter.is_ascii_alphabetic());
        if !name.is_empty() {
            let short = name.get(..3)?.to_ascii_uppercase();
            out.push_str(NAMES.iter().find(|known| **known == short)?);
        }
        out.push_str(&word[name.len()..]);
    }
    Some(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn time(text: &str) -> DateTime<Utc> {
        text.parse().unwrap()
    }

    fn next(schedule: &str, after: &str) -> DateTime<Utc> {
        Schedule::parse(schedule).unwrap().next(time(after)).unwrap()
    }

    #[test]
    fn the_next_run_is_found() {
        for (schedule, after, expected) in [
            ("0 * * * * *", "2024-10-01T10:55:00.004Z", "2024-10-01T10:56:00Z"),
            ("* * * * *", "2024-10-01T10:55:00Z", "2024-10-01T10:56:00Z"),
            ("5/10 * * * * *", "2024-10-01T10:55:00Z", "2024-10-01T10:55:05Z"),
            ("0 0 9-17/4 * * Mon-Friday", "2024-10-04T17:00:00Z", "2024-10-07T09:00:00Z"),
            ("0 0 0 1 january,JUL *", "2024-10-01T10:55:00Z", "2025-01-01T00:00:00Z"),
            // Day and weekday must both match: the first Friday the 13th.
            ("0 0 0 13 * 5", "2024-10-01T00:00:00Z", "2024-12-13T00:00:00Z"),
            ("00:01:30", "2024-10-01T10:55:00.5Z", "2024-10-01T10:56:30.5Z"),
        ] {
            assert_eq!(next(schedule, after), time(expected), "{schedule}");
        }
        let previous = Schedule::parse("0 */5 * * * *").unwrap().previous(time("2024-10-01T10:55:00Z"));
        assert_eq!(previous, Some(time("2024-10-01T10:50:00Z")));
    }

    #[test]
    fn what_the_host_would_not_run_is_refused() {
        for schedule in [
            "",
            "* * * *",
            "* * * * * * *",
            "@daily",
            "0 0 0 L * *",
            "0 0 0 ? * *",
            "0 0 0 * * 5#2",
            "0 0 0 * * 7",
            "60 * * * * *",
            "0 0 0 30 2 *",
            "/5 * * * * *",
            "0 0 0 * * Foo",
            "0 0 0 1W * *",
            "25:99:00",
            "%X%",
        ] {
            Schedule::parse(schedule).expect_err(schedule);
        }
    }

    #[test]
    fn only_schedules_of_a_minute_or_more_are_monitored() {
        let monitored = |schedule| Schedule::parse(schedule).unwrap().is_monitored(time("2024-10-01T10:55:00Z"));
        assert!(monitored("0 * * * * *") && monitored("00:01:00"));
        assert!(!monitored("*/30 * * * * *") && !monitored("00:00:59"));
    }
}
