//! Watches what happens until it is over.

use std::{io, pin::pin, sync::Arc, time::Duration};

use emulators::{
    functions_host::{self, Event, Level},
    iot_hub::Received,
    things_stack,
};
use tokio::{
    signal::unix::{SignalKind, signal},
    sync::broadcast::{
        Receiver,
        error::{RecvError, TryRecvError},
    },
    time::{sleep, timeout},
};

use super::{forwarded::Forwarded, output::Output, tally::Tally};
use crate::{INTERRUPTED, LAST_WORDS};

/// Ctrl-C reaches the handler too. When it is gone first, our own signal is at most so far behind.
const SIGNALS_APART: Duration = Duration::from_millis(500);
/// How long the end waits for webhooks that are in the queue.
const LONGEST_DRAIN: Duration = Duration::from_secs(10);

/// What is watched beside the host.
#[derive(Default)]
pub struct Watched<'a> {
    /// Messages at the hub, if it is emulated.
    pub messages: Option<Receiver<Arc<Received>>>,
    pub stack: Option<WatchedStack<'a>>,
}

/// The emulated Things Stack.
pub struct WatchedStack<'a> {
    pub emulator: &'a things_stack::Emulator,
    pub events: Receiver<things_stack::Event>,
    /// The queue that its webhooks go to. It is emptied before the end.
    pub queue: String,
}

pub struct Session {
    pub tally: Tally,
    functions: Vec<String>,
    timers: Vec<String>,
    handler_starts: usize,
    /// Those that are under way are waited for, but none that begins now.
    is_ending: bool,
}

impl Session {
    pub fn new(functions: Vec<String>, timers: Vec<String>) -> Self {
        Self { tally: Tally::default(), functions, timers, handler_starts: 0, is_ending: false }
    }

    /// Prints what happens until the time is over, Ctrl-C is pressed or the host gives up.
    pub async fn watch(
        &mut self,
        host: functions_host::Emulator,
        watched: Watched<'_>,
        end_after: Option<Duration>,
        output: &mut Output,
    ) -> io::Result<()> {
        let Watched { mut messages, stack } = watched;
        let mut events = host.events();
        let (stack, mut stack_events) = match stack {
            Some(WatchedStack { emulator, events, queue }) => (Some((emulator, queue)), Some(events)),
            None => (None, None),
        };
        // A block: the host is needed again.
        {
            let mut interrupted = pin!(interrupted());
            let mut time_is_over = pin!(sleep(end_after.unwrap_or(Duration::MAX)));
            let mut drained = pin!(drained(&host, stack.as_ref().map(|(emulator, queue)| (*emulator, queue.as_str()))));
            let mut is_drained = false;
            while !(is_drained && self.tally.under_way.is_empty()) {
                tokio::select! {
                    // Messages come before the invocation that sent them ends.
                    biased;
                    result = &mut interrupted => {
                        result?;
                        self.tally.is_interrupted = true;
                        break;
                    }
                    () = &mut time_is_over, if !self.is_ending => self.is_ending = true,
                    left = &mut drained, if self.is_ending && !is_drained => {
                        is_drained = true;
                        self.tally.left = left;
                    }
                    message = next(&mut messages) => self.message(message, output)?,
                    event = next(&mut stack_events) => self.stack_event(event, output)?,
                    event = events.recv() => match event {
                        Ok(Event::Stopped { reason }) => {
                            if timeout(SIGNALS_APART, &mut interrupted).await.is_err() {
                                self.tally.gave_up = Some(reason);
                            }
                            break;
                        }
                        Err(RecvError::Closed) => break,
                        event => self.event(event, output)?,
                    },
                }
            }
        }
        self.is_ending = true;
        // The handler's last lines are there when the host has stopped.
        host.stop().await;
        while let Some(message) = pending(&mut messages) {
            self.message(message, output)?;
        }
        while let Some(event) = pending(&mut stack_events) {
            self.stack_event(event, output)?;
        }
        let mut events = Some(events);
        while let Some(event) = pending(&mut events) {
            self.event(event, output)?;
        }
        Ok(())
    }

    fn message(&mut self, message: Result<Arc<Received>, RecvError>, output: &mut Output) -> io::Result<()> {
        match message {
            Ok(message) => {
                let forwarded = Forwarded::read(&message);
                output.forwarded(&forwarded)?;
                self.tally.add(forwarded);
            }
            Err(RecvError::Lagged(count)) => self.tally.missed += count,
            Err(RecvError::Closed) => {}
        }
        Ok(())
    }

    fn stack_event(&mut self, event: Result<things_stack::Event, RecvError>, output: &mut Output) -> io::Result<()> {
        match event {
            Ok(things_stack::Event::Downlink(request)) => {
                if request.reason.is_none() {
                    self.tally.downlinks += request.downlinks.len() as u64;
                }
                output.downlinks(&request)?;
            }
            // The host tells of webhooks, whoever sent them.
            Ok(things_stack::Event::Delivered(_)) | Err(RecvError::Closed) => {}
            Err(RecvError::Lagged(count)) => self.tally.uncounted += count,
        }
        Ok(())
    }

    fn event(&mut self, event: Result<Event, RecvError>, output: &mut Output) -> io::Result<()> {
        match event {
            Ok(Event::InvocationStarted { function, id }) if !self.is_ending => {
                self.tally.under_way.insert(id, self.timers.contains(&function));
            }
            Ok(Event::InvocationFinished(finished)) => {
                if self.tally.finished(&finished, self.timers.contains(&finished.function)) {
                    output.finished(&finished)?;
                }
            }
            Ok(Event::Line { level, text, .. }) => output.line(level, &text, &self.functions)?,
            Ok(Event::HandlerStarted { .. }) => {
                self.handler_starts += 1;
                if self.handler_starts > 1 {
                    let text = "the handler had ended and is started again";
                    output.line(Level::Warning, text, &self.functions)?;
                }
            }
            Ok(
                Event::InvocationStarted { .. }
                | Event::HandlerReady { .. }
                | Event::HandlerExited { .. }
                | Event::Stopped { .. },
            )
            | Err(RecvError::Closed) => {}
            Err(RecvError::Lagged(count)) => {
                self.tally.uncounted += count;
                // Some of them may have ended unseen, and would be waited for until Ctrl-C.
                self.tally.under_way.clear();
            }
        }
        Ok(())
    }
}

/// Ends the webhooks that are made up, and waits until all of them have left the queue. Returns how many have not.
async fn drained(host: &functions_host::Emulator, stack: Option<(&things_stack::Emulator, &str)>) -> usize {
    let Some((emulator, queue)) = stack else { return 0 };
    emulator.stop().await;
    match host.wait_until_empty(queue, LONGEST_DRAIN).await {
        Ok(false) => host.queue_messages(queue).await.map_or(1, |messages| messages.len()),
        // A queue that cannot be asked has told so elsewhere.
        Ok(true) | Err(_) => 0,
    }
}

/// The next of what is sent; never one where there is nothing to listen to.
async fn next<T: Clone>(receiver: &mut Option<Receiver<T>>) -> Result<T, RecvError> {
    match receiver {
        Some(receiver) => receiver.recv().await,
        None => std::future::pending().await,
    }
}

/// What was sent already.
fn pending<T: Clone>(receiver: &mut Option<Receiver<T>>) -> Option<Result<T, RecvError>> {
    match receiver.as_mut()?.try_recv() {
        Ok(value) => Some(Ok(value)),
        Err(TryRecvError::Lagged(count)) => Some(Err(RecvError::Lagged(count))),
        Err(TryRecvError::Empty | TryRecvError::Closed) => None,
    }
}

/// Ends the process at once when it is interrupted for the second time, also while nobody reads what it prints. Must run beside
/// the session, in a thread of its own. `kill` ends the handler.
pub async fn end_at_second_interrupt(kill: impl Future<Output = ()>) {
    for _ in 0..2 {
        if interrupted().await.is_err() {
            // The session has told so.
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
