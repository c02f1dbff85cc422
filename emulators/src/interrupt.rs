//! Waits for the user, or the system, to end this process.

use std::io;

/// Resolves at Ctrl-C, and when the system tells the process to end: SIGTERM, or on Windows a closed window, Ctrl-Break or
/// the end of the system.
///
/// # Errors
/// The process cannot listen for it.
pub async fn interrupted() -> io::Result<()> {
    tokio::select! {
        result = tokio::signal::ctrl_c() => result,
        result = told_to_end() => result,
    }
}

#[cfg(unix)]
async fn told_to_end() -> io::Result<()> {
    use tokio::signal::unix::{SignalKind, signal};
    let mut terminate = signal(SignalKind::terminate())?;
    let _ = terminate.recv().await;
    Ok(())
}

#[cfg(windows)]
async fn told_to_end() -> io::Result<()> {
    use tokio::signal::windows::{ctrl_break, ctrl_close, ctrl_shutdown};
    let (mut stopped, mut closed, mut shut_down) = (ctrl_break()?, ctrl_close()?, ctrl_shutdown()?);
    tokio::select! {
        _ = stopped.recv() => {}
        _ = closed.recv() => {}
        _ = shut_down.recv() => {}
    }
    Ok(())
}
