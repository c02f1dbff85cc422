//! Shows how many sites are done, on standard error, if that is a terminal.

use std::{
    io::{self, IsTerminal as _, Write as _},
    sync::atomic::{AtomicUsize, Ordering},
};

/// Roughly the largest number of updates.
const STEPS: usize = 200;

pub struct Progress {
    is_shown: bool,
    all: usize,
    done: AtomicUsize,
}

impl Progress {
    pub fn new(all: usize) -> Self {
        Self { is_shown: io::stderr().is_terminal(), all, done: AtomicUsize::new(0) }
    }

    pub fn step(&self) {
        let done = self.done.fetch_add(1, Ordering::Relaxed) + 1;
        if done.is_multiple_of((self.all / STEPS).max(1)) {
            self.show(&format!("\r{done} of {} sites", self.all));
        }
    }

    fn show(&self, text: &str) {
        if self.is_shown {
            // A write error is ignored: the progress is not needed.
            drop(io::stderr().write_all(text.as_bytes()));
        }
    }
}

impl Drop for Progress {
    /// Erases the line.
    fn drop(&mut self) {
        self.show("\r\x1b[K");
    }
}
