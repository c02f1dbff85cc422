//! Logs how far a function came if its call ends first: the host hangs up, or the handler is ended. The function is
//! then dropped at any step, and no other code reports it.

use std::fmt;

/// How far a call has come. It lives within the function, so that both are dropped together, in the call's span.
pub struct Progress {
    function: &'static str,
    pub step: Step,
    has_ended: bool,
}

/// The current step of a function.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    Beginning,
    /// rapidM2M: how many of all sites have had their turn.
    Sites {
        done: usize,
        total: usize,
    },
    /// The Things Network.
    WaitingForTurn,
    Sending,
    PassingOnCommands,
}

impl fmt::Display for Step {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Beginning => out.write_str("nothing was done yet"),
            Self::Sites { done, total } => write!(out, "{done} of {total} sites were done"),
            Self::WaitingForTurn => out.write_str("it waited for earlier messages of the device"),
            Self::Sending => out.write_str("it was being sent"),
            Self::PassingOnCommands => {
                out.write_str("the hub has acknowledged it, and commands for the device were being passed on")
            }
        }
    }
}

impl Progress {
    #[must_use]
    pub fn of(function: &'static str) -> Self {
        Self { function, step: Step::Beginning, has_ended: false }
    }

    pub fn one_site_done(&mut self) {
        if let Step::Sites { done, .. } = &mut self.step {
            *done += 1;
        }
    }

    /// Marks the function as ended: it has its answer.
    pub fn end(mut self) {
        self.has_ended = true;
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        // The log already has a line about a panic.
        if self.has_ended || std::thread::panicking() {
            return;
        }
        let Self { function, step, .. } = self;
        tracing::warn!(
            function.name = *function,
            "{function} was dropped before its end: {step} when the host hung up or the handler was ended"
        );
    }
}
