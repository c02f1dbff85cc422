//! Reads the limits of host.json that the handler must stay below, and the timer's schedule.
//! <https://learn.microsoft.com/azure/azure-functions/functions-host-json>

use std::{fs, path::Path, time::Duration};

use serde_json::Value;

use super::Problems;

/// The default of the Consumption plan. Other plans have longer ones, but the handler does not know its plan.
const FUNCTION_TIMEOUT: Duration = Duration::from_secs(5 * 60);
/// The host's default.
const MAX_DEQUEUE_COUNT: u32 = 5;

/// Limits in host.json.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// `functionTimeout`: the host ends the handler, with every call in it, when one call takes longer. `None` if it is
    /// unlimited (`-1`), or if there is no host.json, as for a command outside of the app's folder.
    pub function_timeout: Option<Duration>,
    /// `maxDequeueCount`: after so many deliveries, the host takes a message for poison.
    pub max_dequeue_count: u32,
}

impl Default for Limits {
    fn default() -> Self {
        Self { function_timeout: None, max_dequeue_count: MAX_DEQUEUE_COUNT }
    }
}

impl Limits {
    /// The limits of the host.json in this folder.
    #[must_use]
    pub fn of(folder: &Path) -> Self {
        fs::read_to_string(folder.join("host.json")).ok().and_then(|text| parse(&text)).unwrap_or_default()
    }
}

fn parse(text: &str) -> Option<Limits> {
    // The host takes comments in this file. What cannot be read here is for the host to report.
    let host: Value = serde_json::from_str(text).ok()?;
    let function_timeout = match &host["functionTimeout"] {
        Value::String(text) => time_span(text),
        Value::Null => Some(FUNCTION_TIMEOUT),
        _ => None,
    };
    let count = host["extensions"]["queues"]["maxDequeueCount"].as_u64().and_then(|count| count.try_into().ok());
    Some(Limits { function_timeout, max_dequeue_count: count.unwrap_or(MAX_DEQUEUE_COUNT) })
}

/// The schedule of the timer that polls the sites, as its function.json in the app's folder has it.
#[must_use]
pub fn schedule(app: &Path) -> Option<String> {
    let text = fs::read_to_string(app.join("rapidM2MForwarding/function.json")).ok()?;
    let function: Value = serde_json::from_str(&text).ok()?;
    let mut bindings = function["bindings"].as_array()?.iter();
    bindings.find_map(|binding| binding["schedule"].as_str()).map(str::to_owned)
}

/// A .NET time span: `[d.]hh:mm:ss[.fraction]`.
fn time_span(text: &str) -> Option<Duration> {
    let (hours, rest) = text.split_once(':')?;
    let (minutes, seconds) = rest.split_once(':')?;
    let (days, hours) = hours.split_once('.').unwrap_or(("0", hours));
    let number = |text: &str| text.parse::<u64>().ok();
    let seconds = number(seconds.split('.').next()?)?;
    Some(Duration::from_secs(((number(days)? * 24 + number(hours)?) * 60 + number(minutes)?) * 60 + seconds))
}

/// Refuses a limit for one call that is not shorter than `functionTimeout`. `needed` is the longest that a call takes with
/// this setting.
pub fn check(
    name: &'static str,
    seconds: u64,
    needed: Duration,
    function_timeout: Option<Duration>,
    problems: &mut Problems,
) {
    if let Some(limit) = function_timeout.filter(|limit| needed >= *limit) {
        let text = format!(
            "is {seconds}: a call can then take {} s, but the host ends the handler after {} s (functionTimeout in host.json); \
             lower {name} or raise functionTimeout",
            needed.as_secs(),
            limit.as_secs()
        );
        problems.add(name, text);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_time_out_is_a_time_span_or_unlimited() {
        let seconds = |text: &str| parse(text)?.function_timeout.map(|timeout| timeout.as_secs());
        assert_eq!(seconds(r#"{"version":"2.0","functionTimeout":"00:05:00"}"#), Some(300));
        assert_eq!(seconds(r#"{"functionTimeout":"1.02:03:04.5"}"#), Some(93_784));
        assert_eq!(seconds(r#"{"version":"2.0"}"#), Some(300));
        for unlimited in [r#"{"functionTimeout":"-1"}"#, r#"{"functionTimeout":-1}"#, "no JSON"] {
            assert_eq!(seconds(unlimited), None, "{unlimited}");
        }
        let own = Limits { function_timeout: Some(Duration::from_secs(300)), max_dequeue_count: 1440 };
        assert_eq!(Limits::of(Path::new(env!("CARGO_MANIFEST_DIR"))), own);
        assert_eq!(Limits::of(Path::new("no such folder")), Limits::default());
        assert_eq!(parse("{}").map(|limits| limits.max_dequeue_count), Some(5));
    }

    #[test]
    fn the_schedule_is_the_timers() {
        assert_eq!(schedule(Path::new(env!("CARGO_MANIFEST_DIR"))).as_deref(), Some("0 * * * * *"));
        assert_eq!(schedule(Path::new("no such folder")), None);
    }
}
