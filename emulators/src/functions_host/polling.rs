//! The pauses between polls of an empty queue: `RandomizedExponentialBackoffStrategy` of the WebJobs SDK.

use std::time::Duration;

use super::queue_options::SHORTEST_POLL;

/// The largest relative difference between a pause and its exact value, either way.
const SPREAD: f64 = 0.2;

/// The growing pauses of one queue.
pub struct Polling {
    longest: Duration,
    current: Duration,
    exponent: i32,
}

impl Polling {
    pub fn new(longest: Duration) -> Self {
        Self { longest, current: Duration::ZERO, exponent: 0 }
    }

    /// The pause after an empty poll. `found_before`: there was a message since the last pause. `random` in 0..1.
    pub fn pause(&mut self, found_before: bool, random: f64) -> Duration {
        if found_before {
            (self.current, self.exponent) = (SHORTEST_POLL, 1);
        } else if self.current != self.longest {
            let mut pause = SHORTEST_POLL;
            if self.exponent > 0 {
                let factor = (1.0 - SPREAD + 2.0 * SPREAD * random) * 2f64.powi(self.exponent - 1);
                pause += SHORTEST_POLL.mul_f64(factor);
            }
            if pause < self.longest {
                self.current = pause;
                self.exponent += 1;
            } else {
                self.current = self.longest;
            }
        }
        self.current
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_to_the_longest_and_start_again_with_a_message() {
        let mut polling = Polling::new(Duration::from_secs(2));
        let mut pauses = |found: &[bool]| -> Vec<u128> {
            found.iter().map(|found| polling.pause(*found, 0.5).as_millis()).collect()
        };
        assert_eq!(pauses(&[false; 8]), [100, 200, 300, 500, 900, 1700, 2000, 2000]);
        assert_eq!(pauses(&[true, false, false]), [100, 200, 300]);
    }

    #[test]
    fn pauses_are_spread() {
        let second = |random| {
            let mut polling = Polling::new(Duration::from_secs(60));
            polling.pause(true, random);
            polling.pause(false, random).as_millis()
        };
        assert_eq!((second(0.0), second(1.0)), (180, 220));
    }
}
