//! When the timers run: only for the introduction, the Functions host decides by itself.

use std::{fs, path::Path};

use chrono::{DateTime, Utc};
use croner::parser::{CronParser, Year};
use serde_json::Value;

use super::services::Settings;

/// A timer function and when it runs.
pub struct Timer {
    pub function: String,
    pub schedule: String,
    /// Whether the command line gave the schedule.
    pub is_overridden: bool,
    /// The first run after the one at the start; unknown for a time span, which counts from the end of a run.
    pub next: Option<DateTime<Utc>>,
}

/// .NET's time span `hh:mm:ss`, for less than a day.
pub fn time_span(seconds: u32) -> String {
    format!("{:02}:{:02}:{:02}", seconds / 3600, seconds / 60 % 60, seconds % 60)
}

/// The timers among `functions`, whose files the host has checked already.
pub fn timers(app: &Path, functions: &[String], schedule: Option<&str>, settings: &Settings) -> Vec<Timer> {
    let timer = |function: &String| {
        let own = own_schedule(&app.join(function).join("function.json"), settings)?;
        let schedule = schedule.unwrap_or(&own).to_owned();
        let next = next(&schedule);
        Some(Timer { function: function.clone(), is_overridden: schedule != own, schedule, next })
    };
    functions.iter().filter_map(timer).collect()
}

fn own_schedule(file: &Path, settings: &Settings) -> Option<String> {
    let document: Value = serde_json::from_str(&fs::read_to_string(file).ok()?).ok()?;
    let schedule = document["bindings"].as_array()?.iter().find_map(|binding| binding["schedule"].as_str())?;
    match schedule.strip_prefix('%').and_then(|rest| rest.strip_suffix('%')) {
        Some(setting) => settings.get(setting).cloned(),
        None => Some(schedule.to_owned()),
    }
}

fn next(schedule: &str) -> Option<DateTime<Utc>> {
    // As the host reads it: day AND weekday must match.
    let parser = CronParser::builder().year(Year::Disallowed).dom_and_dow(true).sloppy_ranges(true).build();
    parser.parse(schedule).ok()?.find_next_occurrence(&Utc::now(), false).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seconds_become_a_time_span() {
        assert_eq!(time_span(5), "00:00:05");
        assert_eq!(time_span(86_399), "23:59:59");
    }

    #[test]
    fn the_next_minute_is_less_than_a_minute_away() {
        let next = next("0 * * * * *").unwrap();
        assert!((1..=60_000).contains(&(next - Utc::now()).num_milliseconds().max(1)));
        assert_eq!(next.timestamp() % 60, 0);
        assert_eq!(super::next("00:00:05"), None);
    }
}
