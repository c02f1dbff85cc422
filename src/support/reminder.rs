//! Limits lines about a fault that lasts, however often it is met.

use std::{
    sync::{Mutex, PoisonError},
    time::Duration,
};

use tokio::time::Instant;

const PERIOD: Duration = Duration::from_secs(60);

/// Says once a minute that a line is due.
#[derive(Debug, Default)]
pub struct Reminder(Mutex<Option<Instant>>);

impl Reminder {
    pub fn is_due(&self) -> bool {
        let mut last = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let is_due = last.is_none_or(|last| last.elapsed() >= PERIOD);
        if is_due {
            *last = Some(Instant::now());
        }
        is_due
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_line_is_due_once_a_minute() {
        let reminder = Reminder::default();
        assert!(reminder.is_due() && !reminder.is_due());
        tokio::time::advance(PERIOD).await;
        assert!(reminder.is_due() && !reminder.is_due());
    }
}
