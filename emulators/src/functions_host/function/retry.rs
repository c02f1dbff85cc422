//! Reads `retry` of a function.json.

use std::time::Duration;

use anyhow::{bail, ensure};

use crate::functions_host::{document::Node, time_span};

/// Retries a failed run before the next tick.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Retry {
    /// `None` means without limit.
    pub most: Option<u64>,
    pub delay: RetryDelay,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RetryDelay {
    Fixed(Duration),
    Exponential { least: Duration, most: Duration },
}

impl Retry {
    /// The pause after the failed attempt `attempt` (the first is 0). `None` after the last attempt.
    /// `random` in 0..1 changes the growth of an exponential delay by up to a fifth either way.
    pub fn pause(&self, attempt: u64, random: f64) -> Option<Duration> {
        if self.most.is_some_and(|most| attempt >= most) {
            return None;
        }
        Some(match self.delay {
            RetryDelay::Fixed(delay) => delay,
            RetryDelay::Exponential { least, most } => {
                let growth = (2f64.powf(attempt as f64) - 1.0) * (0.8 + 0.4 * random);
                let pause = least.as_secs_f64() * (1.0 + growth);
                Duration::try_from_secs_f64(pause).unwrap_or(most).min(most)
            }
        })
    }
}

/// # Errors
/// Names the invalid member.
pub fn parse(node: &Node<'_>) -> anyhow::Result<Retry> {
    let span = |name| {
        let node = node.required(name)?;
        time_span::parse(node.str()?).ok_or_else(|| node.error("must be a time span hh:mm:ss"))
    };
    let count = node.required("maxRetryCount")?;
    let most = match count.integer()? {
        -1 => None,
        most => Some(u64::try_from(most).map_err(|_| count.error("must be -1 or more"))?),
    };
    let strategy = node.required("strategy")?;
    let delay = match strategy.str()? {
        "fixedDelay" => RetryDelay::Fixed(span("delayInterval")?),
        "exponentialBackoff" => {
            let (least, most) = (span("minimumInterval")?, span("maximumInterval")?);
            ensure!(least <= most, node.error("has a minimumInterval above its maximumInterval"));
            RetryDelay::Exponential { least, most }
        }
        _ => bail!(strategy.error("must be \"fixedDelay\" or \"exponentialBackoff\"")),
    };
    Ok(Retry { most, delay })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn retries_end_and_grow() {
        let fixed = Retry { most: Some(2), delay: RetryDelay::Fixed(Duration::from_secs(10)) };
        let pauses: Vec<_> = (0..3).map(|attempt| fixed.pause(attempt, 0.5)).collect();
        assert_eq!(pauses, [Some(Duration::from_secs(10)), Some(Duration::from_secs(10)), None]);
        let delay = RetryDelay::Exponential { least: Duration::from_secs(4), most: Duration::from_secs(60) };
        let growing = Retry { most: None, delay };
        let pauses: Vec<_> = (0..5).map(|attempt| growing.pause(attempt, 0.5).unwrap().as_secs()).collect();
        assert_eq!(pauses, [4, 8, 16, 32, 60]);
        assert_eq!(growing.pause(u64::MAX, 0.5), Some(Duration::from_secs(60)));
    }
}
