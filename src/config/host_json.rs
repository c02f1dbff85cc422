//! Reads `functionTimeout` of host.json: the host ends the handler, with every call in it, when one call takes longer.
//! <https://learn.microsoft.com/azure/azure-functions/functions-host-json#functiontimeout>

use std::{fs, path::Path, time::Duration};

use serde_json::Value;

use super::Problems;

/// The default of the Consumption plan. Other plans have longer ones, but the handler does not know its plan.
const DEFAULT: Duration = Duration::from_secs(5 * 60);

/// `functionTimeout` of the host.json in this folder. `None` if it is unlimited (`-1`), or if there is no host.json, as for
/// a command outside of the app's folder.
#[must_use]
pub fn function_timeout(folder: &Path) -> Option<Duration> {
    parse(&fs::read_to_string(folder.join("host.json")).ok()?)
}

fn parse(text: &str) -> Option<Duration> {
    // The host takes comments in this file. What cannot be read here is for the host to report.
    let host: Value = serde_json::from_str(text).ok()?;
    match &host["functionTimeout"] {
        Value::String(text) => time_span(text),
        Value::Null => Some(DEFAULT),
        _ => None,
    }
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
        let seconds = |text: &str| parse(text).map(|timeout| timeout.as_secs());
        assert_eq!(seconds(r#"{"version":"2.0","functionTimeout":"00:05:00"}"#), Some(300));
        assert_eq!(seconds(r#"{"functionTimeout":"1.02:03:04.5"}"#), Some(93_784));
        assert_eq!(seconds(r#"{"version":"2.0"}"#), Some(300));
        for unlimited in [r#"{"functionTimeout":"-1"}"#, r#"{"functionTimeout":-1}"#, "no JSON"] {
            assert_eq!(seconds(unlimited), None, "{unlimited}");
        }
        assert_eq!(function_timeout(Path::new(env!("CARGO_MANIFEST_DIR"))), Some(Duration::from_secs(300)));
        assert_eq!(function_timeout(Path::new("no such folder")), None);
    }
}
