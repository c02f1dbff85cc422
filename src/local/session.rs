//! Passes on the handler's lines until the session ends, and counts its calls.

use std::{io, pin::pin, time::Duration};

use emulators::{
    functions_host::{self, Event, Level, Stream},
    interrupt::interrupted,
    things_stack,
};
use tokio::{
    sync::{
        broadcast::error::{RecvError, TryRecvError},
        mpsc::{UnboundedReceiver, unbounded_channel},
    },
    time::{sleep, timeout},
};

use super::{output::Output, services::SITES, tally::Tally};
use crate::cli::{exit::INTERRUPTED, interrupt::LAST_WORDS};

/// Ctrl-C also reaches the handler. If the handler ends first, this process's own signal comes at most this much
/// later.
const SIGNALS_APART: Duration = Duration::from_millis(500);
/// How long the end waits for webhooks in the queue.
const LONGEST_DRAIN: Duration = Duration::from_secs(10);

/// The queues that the session empties before it ends.
#[derive(Clone, Copy)]
pub struct Queues<'a> {
    /// The emulated Things Stack, and the queue for its webhooks.
    pub webhooks: Option<(&'a things_stack::Emulator, &'a str)>,
    /// The queue of batches of sites.
    pub sites: Option<&'a str>,
}

pub struct Session {
    pub output: Output,
    pub tally: Tally,
    handler_starts: usize,
    /// Invocations in flight are waited for, new ones are not.
    is_ending: bool,
    /// The events of the other hosts, with their numbers from 2 on. `None` without others.
    others: Option<UnboundedReceiver<OfOther>>,
    has_others: bool,
}

/// An event of another host, or how many were lost.
type OfOther = (usize, Result<Event, u64>);

impl Session {
    pub fn new(output: Output, others: &[functions_host::Emulator]) -> Self {
        let (sender, receiver) = unbounded_channel();
        for (host, number) in others.iter().zip(2..) {
            let (mut events, sender) = (host.events(), sender.clone());
            tokio::spawn(async move {
                loop {
                    let event = match events.recv().await {
                        Ok(event) => Ok(event),
                        Err(RecvError::Lagged(count)) => Err(count),
                        Err(RecvError::Closed) => break,
                    };
                    if sender.send((number, event)).is_err() {
                        break;
                    }
                }
            });
        }
        let has_others = !others.is_empty();
        let others = has_others.then_some(receiver);
        Self { output, tally: Tally::default(), handler_starts: 0, is_ending: false, others, has_others }
    }

    /// Prints events until the time ends, the user presses Ctrl-C or the host gives up.
    pub async fn watch(
        &mut self,
        host: functions_host::Emulator,
        other_hosts: Vec<functions_host::Emulator>,
        queues: Queues<'_>,
        end_after: Option<Duration>,
    ) -> io::Result<()> {
        let (mut events, mut others) = (host.events(), self.others.take());
        // This block ends the borrows of the host: it is used again below.
        {
            let mut interrupted = pin!(interrupted());
            let mut time_is_over = pin!(sleep(end_after.unwrap_or(Duration::MAX)));
            let mut drained = pin!(drained(&host, queues));
            let mut is_drained = false;
            while !(is_drained && self.tally.under_way.is_empty()) {
                tokio::select! {
                    biased;
                    result = &mut interrupted => {
                        result?;
                        self.tally.is_interrupted = true;
                        break;
                    }
                    () = &mut time_is_over, if !self.is_ending => self.is_ending = true,
                    left = &mut drained, if self.is_ending && !is_drained => {
                        is_drained = true;
                        self.tally.left_in_queue = left;
                    }
                    Some((number, event)) = next(&mut others), if self.has_others => match event {
                        Ok(Event::Stopped { reason }) => {
                            self.tally.error = Some(format!("instance {number}: {reason}"));
                            break;
                        }
                        Ok(event) => self.event(number, event)?,
                        Err(count) => self.lagged(count),
                    },
                    event = events.recv() => match event {
                        Ok(Event::Stopped { reason }) => {
                            if timeout(SIGNALS_APART, &mut interrupted).await.is_err() {
                                self.tally.error = Some(reason);
                            }
                            break;
                        }
                        Err(RecvError::Closed) => break,
                        Err(RecvError::Lagged(count)) => self.lagged(count),
                        Ok(event) => self.event(1, event)?,
                    },
                }
            }
        }
        self.is_ending = true;
        // The handler's last lines have arrived when the host has stopped.
        host.stop().await;
        for other in other_hosts {
            other.stop().await;
        }
        while let Some(Ok((number, event))) = others.as_mut().map(UnboundedReceiver::try_recv) {
            if let Ok(event) = event {
                self.event(number, event)?;
            }
        }
        loop {
            match events.try_recv() {
                Ok(event) => self.event(1, event)?,
                Err(TryRecvError::Lagged(count)) => self.lagged(count),
                Err(TryRecvError::Empty | TryRecvError::Closed) => break,
            }
        }
        self.tally.cut_off = self.tally.under_way.values().filter(|is_run| **is_run).count() as u64;
        Ok(())
    }

    fn event(&mut self, instance: usize, event: Event) -> io::Result<()> {
        match event {
            Event::InvocationStarted { function, id } if !self.is_ending => self.tally.started(&function, id),
            Event::InvocationFinished(finished) => {
                let counts = self.tally.finished(&finished);
                if counts && finished.succeeded && finished.function == SITES {
                    *self.tally.batches.entry(instance).or_default() += 1;
                }
                // The handler has already logged the error that it answers.
                if let Some(error) = finished.error.filter(|_| counts && !finished.response["Error"].is_string()) {
                    let text = format!("{} failed: {error}", finished.function);
                    self.output.line(Stream::Host, Level::Error, &text)?;
                }
            }
            Event::Line { stream, level, text } if self.has_others && !self.output.is_json => {
                self.output.line(stream, level, &format!("[{instance}] {text}"))?;
            }
            Event::Line { stream, level, text } => self.output.line(stream, level, &text)?,
            Event::HandlerStarted { .. } if instance == 1 => {
                self.handler_starts += 1;
                if self.handler_starts > 1 {
                    let text = "the handler had ended and is started again";
                    self.output.line(Stream::Host, Level::Warning, text)?;
                }
            }
            Event::InvocationStarted { .. }
            | Event::HandlerStarted { .. }
            | Event::HandlerReady { .. }
            | Event::HandlerExited { .. }
            | Event::Stopped { .. } => {}
        }
        Ok(())
    }

    /// Events came too fast and some were lost. Calls whose end was lost would keep the session waiting until Ctrl-C.
    fn lagged(&mut self, count: u64) {
        self.tally.uncounted += count;
        self.tally.under_way.clear();
    }
}

/// The next event of another host.
async fn next(others: &mut Option<UnboundedReceiver<OfOther>>) -> Option<OfOther> {
    others.as_mut()?.recv().await
}

/// Stops the emulated webhooks and waits until all of them have left the queue, and until no batch of sites waits. Returns how
/// many webhooks are still in it.
async fn drained(host: &functions_host::Emulator, queues: Queues<'_>) -> u64 {
    if let Some(queue) = queues.sites {
        // A batch that is left over is not a loss.
        let _ = host.wait_until_empty(queue, LONGEST_DRAIN).await;
    }
    let Some((emulator, queue)) = queues.webhooks else { return 0 };
    emulator.stop().await;
    match host.wait_until_empty(queue, LONGEST_DRAIN).await {
        Ok(false) => host.queue_messages(queue).await.map_or(1, |messages| messages.len() as u64),
        // If the queue cannot be read, another line already reports it.
        Ok(true) | Err(_) => 0,
    }
}

/// Ends the process at once at the second interrupt, even if nothing reads its output. Must run beside the session, in
/// a thread of its own. `kill` ends the handler.
pub async fn end_at_second_interrupt(kill: impl Future<Output = ()>) {
    for _ in 0..2 {
        if interrupted().await.is_err() {
            // The session has reported it.
            return;
        }
    }
    let _ = timeout(LAST_WORDS, kill).await;
    std::process::exit(INTERRUPTED.into());
}
