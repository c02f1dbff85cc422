//! Ctrl-C: the first ends the command in order, the second at once.

use std::time::Duration;

/// Exit code after Ctrl-C, as in shells: 128 plus the signal's number.
pub const INTERRUPTED: u8 = 130;
/// How long the end waits for log lines of dropped work.
pub const LAST_WORDS: Duration = Duration::from_secs(1);

/// Resolves when the user presses Ctrl-C. The host kills without warning; a cut at any step is safe.
pub async fn interrupted() {
    if tokio::signal::ctrl_c().await.is_err() {
        std::future::pending::<()>().await;
    }
}

/// Resolves at the second Ctrl-C: the user does not want to wait for work in flight.
pub async fn interrupted_twice() {
    interrupted().await;
    interrupted().await;
}
