//! Puts a message back into the queue that cannot be forwarded now.
//!
//! The handler puts the message back itself: a failed invocation would come back after a fixed time, cost the host two
//! exceptions in its log, and count towards the poison queue.

use std::time::Duration;

use chrono::TimeDelta;

use crate::{
    host::queue::QueueMessage,
    iot_hub::delivery::DeliveryError,
    queue::{Queue, QueueError, Receipt},
};

/// A registration takes 3 to 7 s, most of them hardly more than 3.
const REGISTERING: Growth = Growth { first: Duration::from_secs(4), factor: 2, longest: Duration::from_secs(60) };
/// Earlier messages of the device are being sent.
const TURN: Growth = Growth { first: Duration::from_secs(2), factor: 2, longest: Duration::from_secs(60) };
/// A service is away, or refuses the device. Each return costs the host some milliseconds of CPU, so a message that has
/// waited long may wait longer.
const AWAY: Growth = Growth { first: Duration::from_secs(5), factor: 4, longest: Duration::from_secs(10 * 60) };
/// Returns are spread: waits are up to this part longer.
const SPREAD: f64 = 0.25;
/// A queue keeps messages for 7 days. A message with less time than this is written anew, to be kept for ever.
const LEAST_LIFE: TimeDelta = TimeDelta::hours(84);

/// Where messages go back to.
pub struct Back {
    pub queue: Queue,
    /// `maxDequeueCount` of host.json.
    pub max_dequeue_count: u32,
}

/// Why a message is not back in the queue: the invocation must fail, so that the host puts it back.
#[derive(Debug, thiserror::Error)]
pub enum NotBack {
    #[error("the host did not say which message it is")]
    Unnamed,
    #[error(transparent)]
    Queue(#[from] QueueError),
}

impl Back {
    /// Returns when it comes back.
    ///
    /// # Errors
    /// See [`NotBack`].
    pub async fn put(&self, message: &QueueMessage, cause: Cause) -> Result<Duration, NotBack> {
        let wait = cause.wait(message.dequeue_count.unwrap_or(1), fastrand::f64());
        match way(message, self.max_dequeue_count).ok_or(NotBack::Unnamed)? {
            Way::Hidden(receipt) => self.queue.put_back(receipt, wait).await?,
            // The host deletes the original, since its receipt is still valid.
            Way::Anew => self.queue.put_for_ever(&message.text, wait).await?,
        }
        Ok(wait)
    }
}

/// How waits grow with each return.
struct Growth {
    first: Duration,
    factor: u32,
    longest: Duration,
}

/// Why a message waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cause {
    Registering,
    Turn,
    /// A service. Not before this time, if it requests a wait.
    Away(Option<Duration>),
}

/// How a message goes back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way<'a> {
    /// It becomes visible again.
    Hidden(&'a Receipt),
    /// A copy takes its place, which starts its life and its count of deliveries again.
    Anew,
}

impl Cause {
    pub fn of(error: &DeliveryError) -> Self {
        if error.is_underway() { Self::Registering } else { Self::Away(error.requested_wait()) }
    }

    /// The wait before the next delivery. `deliveries` counts from 1, `chance` is from 0 to 1.
    fn wait(self, deliveries: u32, chance: f64) -> Duration {
        let (growth, least) = match self {
            Self::Registering => (REGISTERING, None),
            Self::Turn => (TURN, None),
            Self::Away(requested) => (AWAY, requested),
        };
        let factor = growth.factor.saturating_pow(deliveries.saturating_sub(1));
        let wait = growth.first.saturating_mul(factor).min(growth.longest);
        let wait = wait.mul_f64(1.0 + SPREAD * chance);
        wait.max(least.unwrap_or_default().min(growth.longest))
    }
}

/// How the message goes back. `None`: the host did not say which message it is, so the invocation must fail.
///
/// `most` is `maxDequeueCount` of host.json: after so many deliveries, the host takes the message for poison.
fn way(message: &QueueMessage, most: u32) -> Option<Way<'_>> {
    let receipt = message.receipt.as_ref()?;
    let is_old = message.life.is_some_and(|life| life < LEAST_LIFE);
    let is_worn = message.dequeue_count.is_some_and(|count| count >= most.div_ceil(2));
    Some(if is_old || is_worn { Way::Anew } else { Way::Hidden(receipt) })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const CAUSES: [Cause; 3] = [Cause::Registering, Cause::Turn, Cause::Away(None)];

    #[test]
    fn waits_grow_and_fit_the_cause() {
        let waits = |cause: Cause, count| (1..=count).map(move |n| cause.wait(n, 0.0).as_secs()).collect::<Vec<_>>();
        assert_eq!(waits(Cause::Registering, 6), [4, 8, 16, 32, 60, 60]);
        assert_eq!(waits(Cause::Turn, 3), [2, 4, 8]);
        assert_eq!(waits(Cause::Away(None), 6), [5, 20, 80, 320, 600, 600]);
        assert_eq!(waits(Cause::Away(Some(Duration::from_secs(60))), 4), [60, 60, 80, 320]);
    }

    proptest! {
        #[test]
        fn no_wait_is_zero_or_longer_than_the_longest(deliveries: u32, chance in 0.0..=1.0, requested: Option<u32>) {
            let requested = requested.map(|seconds| Duration::from_secs(seconds.into()));
            for cause in CAUSES.into_iter().chain([Cause::Away(requested)]) {
                let wait = cause.wait(deliveries, chance);
                prop_assert!(wait >= Duration::from_secs(1) && wait <= AWAY.longest.mul_f64(1.0 + SPREAD), "{:?}", wait);
            }
        }
    }

    #[test]
    fn what_is_old_or_came_often_is_written_anew() {
        let receipt = Receipt::new("52d53c5f-e212-487e-998b-abbe3b9d51e4", "MThGZWIy").unwrap();
        let message = |dequeue_count, life_hours| QueueMessage {
            text: String::new(),
            dequeue_count: Some(dequeue_count),
            inserted_at: None,
            life: Some(TimeDelta::hours(life_hours)),
            receipt: Some(receipt.clone()),
        };
        for (count, hours, expected) in [
            (1, 168, Way::Hidden(&receipt)),
            (719, 84, Way::Hidden(&receipt)),
            (720, 168, Way::Anew),
            (1, 83, Way::Anew),
        ] {
            assert_eq!(way(&message(count, hours), 1440), Some(expected), "{count}, {hours}");
        }
        assert_eq!(way(&message(3, 168), 5), Some(Way::Anew), "a small limit");
        assert_eq!(way(&QueueMessage { receipt: None, ..message(1, 168) }, 1440), None);
    }
}
