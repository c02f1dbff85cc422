//! Reads `extensions.queues` of host.json.

use std::time::Duration;

use anyhow::{Context as _, ensure};

use super::{document::Node, settings::Settings, time_span};
use crate::queues::{Encoding, LARGEST_BATCH};

/// Shortest pause between two polls of an empty queue.
pub const SHORTEST_POLL: Duration = Duration::from_millis(100);
const LONGEST_INVISIBLE: Duration = Duration::from_secs(7 * 24 * 60 * 60);

/// How queue functions run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct QueueOptions {
    /// Messages per take.
    pub batch_size: usize,
    /// More messages are taken when at most this many are being processed.
    pub new_batch_threshold: usize,
    /// Longest pause between two polls of an empty queue.
    pub max_polling_interval: Duration,
    /// After this many attempts a message goes to the poison queue.
    pub max_dequeue_count: u64,
    /// How long a message stays invisible after a failed attempt.
    pub visibility_timeout: Duration,
    pub encoding: Encoding,
}

impl Default for QueueOptions {
    fn default() -> Self {
        Self {
            batch_size: 16,
            new_batch_threshold: 8,
            max_polling_interval: Duration::from_secs(60),
            max_dequeue_count: 5,
            visibility_timeout: Duration::ZERO,
            encoding: Encoding::Base64,
        }
    }
}

impl QueueOptions {
    /// # Errors
    /// Names the invalid member.
    pub fn parse(node: &Node<'_>) -> anyhow::Result<Self> {
        let default = Self::default();
        let batch_size = integer(node, "batchSize", 1, LARGEST_BATCH)?.unwrap_or(default.batch_size);
        let span = |name| {
            let Some(member) = node.get(name) else { return Ok(None) };
            let span = time_span::parse_any(member.str()?);
            span.map(|span| Some((member.clone(), span))).ok_or_else(|| member.error("must be a time span hh:mm:ss"))
        };
        let max_polling_interval = match span("maxPollingInterval")? {
            Some((member, span)) => {
                ensure!(span >= SHORTEST_POLL, member.error("must be 00:00:00.100 or more"));
                span
            }
            None => default.max_polling_interval,
        };
        let visibility_timeout = match span("visibilityTimeout")? {
            Some((member, span)) => {
                ensure!(span <= LONGEST_INVISIBLE, member.error("must be 7.00:00:00 or less"));
                span
            }
            None => default.visibility_timeout,
        };
        let encoding = match node.get("messageEncoding") {
            None => default.encoding,
            Some(member) => match member.str()?.to_ascii_lowercase().as_str() {
                "base64" => Encoding::Base64,
                "none" => Encoding::None,
                _ => return Err(member.error("must be \"base64\" or \"none\"")),
            },
        };
        Ok(Self {
            batch_size,
            new_batch_threshold: integer(node, "newBatchThreshold", 0, usize::MAX)?.unwrap_or(batch_size / 2),
            max_polling_interval,
            max_dequeue_count: integer(node, "maxDequeueCount", 1, usize::MAX)?
                .map_or(default.max_dequeue_count, |count| count as u64),
            visibility_timeout,
            encoding,
        })
    }
}

impl QueueOptions {
    /// App settings win over host.json.
    /// <https://learn.microsoft.com/azure/azure-functions/functions-host-json#override-hostjson-values>
    ///
    /// # Errors
    /// Names the invalid setting.
    pub fn overridden(mut self, settings: &Settings) -> anyhow::Result<Self> {
        for (member, value, range) in [
            ("batchSize", &mut self.batch_size, 1..=LARGEST_BATCH),
            ("newBatchThreshold", &mut self.new_batch_threshold, 0..=usize::MAX),
        ] {
            let name = format!("AzureFunctionsJobHost__extensions__queues__{member}");
            if let Some(text) = settings.get(&name) {
                let number = text.parse().ok().filter(|number| range.contains(number));
                *value = number.with_context(|| format!("{name} is {text:?}, which is no {member}"))?;
            }
        }
        Ok(self)
    }
}

fn integer(node: &Node<'_>, name: &str, least: usize, most: usize) -> anyhow::Result<Option<usize>> {
    let Some(member) = node.get(name) else { return Ok(None) };
    let number = usize::try_from(member.integer()?).ok().filter(|number| (least..=most).contains(number));
    let bounds = if most == usize::MAX { format!("{least} or more") } else { format!("{least} to {most}") };
    number.map(Some).ok_or_else(|| member.error(format_args!("must be {bounds}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn app_settings_win_over_host_json() {
        let overridden = |member: &str, text: &str| {
            let name = format!("AzureFunctionsJobHost__extensions__queues__{member}");
            QueueOptions::default().overridden(&[(name, text.to_owned())].into())
        };
        assert_eq!(overridden("batchSize", "1").unwrap().batch_size, 1);
        assert_eq!(overridden("newBatchThreshold", "0").unwrap().new_batch_threshold, 0);
        assert_eq!(overridden("other", "x").unwrap(), QueueOptions::default());
        for (member, text) in [("batchSize", "33"), ("batchSize", "0"), ("newBatchThreshold", "x")] {
            assert!(overridden(member, text).unwrap_err().to_string().contains(member), "{text}");
        }
    }
}
