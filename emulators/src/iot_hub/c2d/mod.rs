//! Messages to devices: a mailbox for each, filled through the control endpoint and emptied over MQTT and HTTPS.
//!
//! Source: <https://learn.microsoft.com/azure/iot-hub/iot-hub-devguide-messages-c2d>.

mod message;
mod queue;

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
};

use tokio::{
    sync::watch,
    time::{Instant, sleep_until, timeout_at},
};

pub use self::{
    message::{MAX_MESSAGE, Message, to},
    queue::{Delivery, Outcome, Queue, Stage, Status},
};

/// The mailboxes of all devices.
#[derive(Default)]
pub struct C2d {
    mailboxes: Mutex<HashMap<String, Arc<Mailbox>>>,
}

/// The messages of one device.
#[derive(Default)]
pub struct Mailbox {
    queue: Mutex<Queue>,
    changed: watch::Sender<()>,
}

impl C2d {
    /// The mailbox of a device, made if there is none yet.
    pub fn mailbox(&self, device_id: &str) -> Arc<Mailbox> {
        let mut mailboxes = self.mailboxes.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(mailbox) = mailboxes.get(device_id) {
            return Arc::clone(mailbox);
        }
        Arc::clone(mailboxes.entry(device_id.to_owned()).or_default())
    }
}

impl Mailbox {
    /// Does something with the queue as it is now, and tells everybody who waits if that changed it.
    pub fn with<T>(&self, act: impl FnOnce(&mut Queue) -> T) -> T {
        let mut queue = self.queue.lock().unwrap_or_else(PoisonError::into_inner);
        let before = queue.version();
        queue.advance(Instant::now());
        let result = act(&mut queue);
        if queue.version() != before {
            self.changed.send_replace(());
        }
        result
    }

    /// Says when the queue has changed since the last look.
    pub fn subscribe(&self) -> watch::Receiver<()> {
        self.changed.subscribe()
    }

    /// Waits until so many messages have come to a stage, or until the deadline.
    pub async fn wait(&self, stage: Stage, number: usize, deadline: Instant) {
        let mut changed = self.subscribe();
        let reached = async {
            loop {
                changed.borrow_and_update();
                let (count, due) = self.with(|queue| (queue.count(stage), queue.next_due()));
                if count >= number {
                    return;
                }
                // Locks and messages come to their end without anybody doing anything.
                let due = async {
                    match due {
                        Some(due) => sleep_until(due).await,
                        None => std::future::pending().await,
                    }
                };
                tokio::select! {
                    _ = changed.changed() => {}
                    () = due => {}
                }
            }
        };
        let _ = timeout_at(deadline, reached).await;
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn waiting_sees_what_others_do_and_what_time_does() {
        let c2d = C2d::default();
        let mailbox = c2d.mailbox("d");
        let message = || Message { ttl: Some(Duration::from_secs(5)), ..Message::default() };
        mailbox.with(|queue| queue.enqueue(message()).unwrap());
        mailbox.with(|queue| queue.enqueue(message()).unwrap());
        let start = Instant::now();
        let deadline = start + Duration::from_secs(600);
        let complete = async {
            tokio::task::yield_now().await;
            let token = c2d.mailbox("d").with(|queue| queue.lock(None)).unwrap().token;
            c2d.mailbox("d").with(|queue| queue.settle(&token, Outcome::Complete)).unwrap();
        };
        tokio::join!(mailbox.wait(Stage::Completed, 1, deadline), complete);
        assert_eq!(start.elapsed(), Duration::ZERO);
        mailbox.wait(Stage::Expired, 1, deadline).await;
        assert_eq!(start.elapsed().as_secs(), 5);
        mailbox.wait(Stage::Expired, 2, deadline).await;
        assert_eq!(start.elapsed().as_secs(), 600, "time is over");
    }
}
