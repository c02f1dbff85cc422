//! Runs the cells of a table, several at a time, and compares the page with their results.

use std::panic::AssertUnwindSafe;

use futures::{FutureExt as _, future::join_all};
use tokio::sync::Semaphore;

use super::{cell::Line, page};

/// The number of worlds at a time, for all tables together. Most of them wait for a time-out.
static WORLDS: Semaphore = Semaphore::const_new(40);

/// Runs all cells and compares the page with their results. Returns the errors, each with its cell.
pub async fn run<Cell, Running>(
    name: &'static str,
    cells: Vec<Cell>,
    fault: impl Fn(&Cell) -> String,
    of: impl Fn(Cell) -> Running,
) -> Vec<String>
where
    Running: Future<Output = Line>,
{
    let only = std::env::var("FAULTS_ONLY").ok();
    let cells = cells.into_iter().filter(|cell| only.as_ref().is_none_or(|only| fault(cell).contains(only)));
    let running = cells.map(|cell| {
        let fault = fault(&cell);
        let running = AssertUnwindSafe(of(cell)).catch_unwind();
        async move {
            // This semaphore is never closed.
            let _permit = WORLDS.acquire().await;
            (fault, running.await)
        }
    });
    let outcomes = join_all(running.collect::<Vec<_>>()).await;
    let (mut lines, mut failed) = (Vec::new(), Vec::new());
    for (fault, outcome) in outcomes {
        match outcome {
            Ok(line) => lines.push(line),
            Err(panic) => failed.push(format!("{name}, {fault}: {}", message(panic.as_ref()))),
        }
    }
    if only.is_none() && failed.is_empty() {
        failed.extend(page::check(name, &lines).err());
    }
    failed
}

/// Fails with the errors of all tables.
pub fn report(tables: impl IntoIterator<Item = Vec<String>>) {
    let failed: Vec<_> = tables.into_iter().flatten().collect();
    assert!(failed.is_empty(), "{} cells failed:\n\n{}", failed.len(), failed.join("\n\n"));
}

fn message(panic: &(dyn std::any::Any + Send)) -> &str {
    let text = panic.downcast_ref::<String>().map(String::as_str).or(panic.downcast_ref::<&str>().copied());
    text.unwrap_or("a panic without words")
}
