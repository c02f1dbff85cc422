//! Runs the cells of a table, several at a time.

use std::panic::AssertUnwindSafe;

use futures::{FutureExt as _, StreamExt as _, stream};

use super::{cell::Line, page};

/// Worlds at a time, for each table. Most of them wait for something that does not come.
const AT_ONCE: usize = 17;

/// Runs all cells, names those that fail, and holds the page to what was seen.
pub async fn run<Cell, Running>(
    name: &'static str,
    cells: Vec<Cell>,
    fault: impl Fn(&Cell) -> String,
    of: impl Fn(Cell) -> Running,
) where
    Running: Future<Output = Line>,
{
    let only = std::env::var("FAULTS_ONLY").ok();
    let cells = cells.into_iter().filter(|cell| only.as_ref().is_none_or(|only| fault(cell).contains(only)));
    let running = cells.map(|cell| {
        let fault = fault(&cell);
        let running = AssertUnwindSafe(of(cell)).catch_unwind();
        async move { (fault, running.await) }
    });
    let outcomes: Vec<_> = stream::iter(running.collect::<Vec<_>>()).buffered(AT_ONCE).collect().await;
    let (mut lines, mut failed) = (Vec::new(), Vec::new());
    for (fault, outcome) in outcomes {
        match outcome {
            Ok(line) => lines.push(line),
            Err(panic) => failed.push(format!("{name}, {fault}: {}", message(panic.as_ref()))),
        }
    }
    assert!(failed.is_empty(), "{} cells failed:\n\n{}", failed.len(), failed.join("\n\n"));
    if only.is_none() {
        page::check(name, &lines);
    }
}

fn message(panic: &(dyn std::any::Any + Send)) -> &str {
    let text = panic.downcast_ref::<String>().map(String::as_str).or(panic.downcast_ref::<&str>().copied());
    text.unwrap_or("a panic without words")
}
