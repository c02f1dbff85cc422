//! Passes the handler's lines on until it is over, and counts its calls.

use std::{io, pin::pin, time::Duration};

use emulators::{
    functions_host::{self, Event, Level, Stream},
    things_stack,
};
use tokio::{
    signal::unix::{SignalKind, signal},
    sync::broadcast::error::{RecvError, TryRecvError},
    time::{sleep, timeout},
};

use super::{output::Output, tally::Tally};
use crate::{INTERRUPTED, LAST_WORDS};

/// Ctrl-C reaches the handler too. When it is gone first, our own signal is at most so far behind.
const SIGNALS_APART: Duration = Duration::from_millis(500);
/// How long the end waits for webhooks that are in the queue.
const LONGEST_DRAIN: Duration = Duration::from_secs(10);

/// The emulated Things Stack, and the queue that its webhooks go to. It is emptied before the end.
pub type Webhooks<'a> = Option<(&'a things_stack::Emulator, &'a str)>;

pub struct Session {
    pub output: Output,
    pub tally: Tally,
    handler_starts: usize,
    /// Those that are under way are waited for, but none that begins now.
    is_ending: bool,
}

impl Session {
    pub fn new(output: Output) -> Self {
        Self { output, tally: Tally::default(), handler_starts: 0, is_ending: false }
    }

    /// Prints what happens until the time is over, Ctrl-C is pressed or the host gives up.
    pub async fn watch(
        &mut self,
        host: functions_host::Emulator,
        webhooks: Webhooks<'_>,
        end_after: Option<Duration>,
    ) -> io::Result<()> {
        let mut events = host.events();
        // A block: the host is needed again.
        {
            let mut interrupted = pin!(interrupted());
            let mut time_is_over = pin!(sleep(end_after.unwrap_or(Duration::MAX)));
            let mut drained = pin!(drained(&host, webhooks));
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
                    event = events.recv() => match event {
                        Ok(Event::Stopped { reason }) => {
                            if timeout(SIGNALS_APART, &mut interrupted).await.is_err() {
                                self.tally.error = Some(reason);
                            }
                            break;
                        }
                        Err(RecvError::Closed) => break,
                        Err(RecvError::Lagged(count)) => self.lagged(count),
                        Ok(event) => self.event(event)?,
                    },
                }
            }
        }
        self.is_ending = true;
        // The handler's last lines are there when the host has stopped.
        host.stop().await;
        loop {
            match events.try_recv() {
                Ok(event) => self.event(event)?,
                Err(TryRecvError::Lagged(count)) => self.lagged(count),
                Err(TryRecvError::Empty | TryRecvError::Closed) => break,
            }
        }
        self.tally.cut_off = self.tally.under_way.values().filter(|is_run| **is_run).count() as u64;
        Ok(())
    }

    fn event(&mut self, event: Event) -> io::Result<()> {
        match event {
            Event::InvocationStarted { function, id } if !self.is_ending => self.tally.started(&function, id),
            Event::InvocationFinished(finished) => {
                let counts = self.tally.finished(&finished);
                // What the handler answers it has logged.
                if let Some(error) = finished.error.filter(|_| counts && !finished.response["Error"].is_string()) {
                    let text = format!("{} failed: {error}", finished.function);
                    self.output.line(Stream::Host, Level::Error, &text)?;
                }
            }
            Event::Line { stream, level, text } => self.output.line(stream, level, &text)?,
            Event::HandlerStarted { .. } => {
                self.handler_starts += 1;
                if self.handler_starts > 1 {
                    let text = "the handler had ended and is started again";
                    self.output.line(Stream::Host, Level::Warning, text)?;
                }
            }
            Event::InvocationStarted { .. }
            | Event::HandlerReady { .. }
            | Event::HandlerExited { .. }
            | Event::Stopped { .. } => {}
        }
        Ok(())
    }

    /// Events came too fast. Some of the calls may have ended unseen, and would be waited for until Ctrl-C.
    fn lagged(&mut self, count: u64) {
        self.tally.uncounted += count;
        self.tally.under_way.clear();
    }
}

/// Ends the webhooks that are made up, and waits until all of them have left the queue. Returns how many have not.
async fn drained(host: &functions_host::Emulator, webhooks: Webhooks<'_>) -> u64 {
    let Some((emulator, queue)) = webhooks else { return 0 };
    emulator.stop().await;
    match host.wait_until_empty(queue, LONGEST_DRAIN).await {
        Ok(false) => host.queue_messages(queue).await.map_or(1, |messages| messages.len() as u64),
        // A queue that cannot be asked has told so elsewhere.
        Ok(true) | Err(_) => 0,
    }
}

/// Ends the process at once when it is interrupted for the second time, also while nobody reads what it prints. Must run beside
/// the session, in a thread of its own. `kill` ends the handler.
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

async fn interrupted() -> io::Result<()> {
    let mut terminated = signal(SignalKind::terminate())?;
    tokio::select! {
        result = tokio::signal::ctrl_c() => result,
        _ = terminated.recv() => Ok(()),
    }
}
