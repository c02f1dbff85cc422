//! Ends the handler's process, as far as the operating system lets somebody ask for it.

use std::io;

use tokio::process::Child;

/// Asks the process to end (SIGTERM). `false`: it cannot be asked, only killed.
#[cfg(unix)]
pub fn ask(child: &Child) -> bool {
    use rustix::process::{Pid, Signal, kill_process};
    let pid = child.id().and_then(|pid| Pid::from_raw(pid.cast_signed()));
    // An error means that it has just ended.
    pid.map(|pid| kill_process(pid, Signal::TERM)).is_some()
}

/// Windows has no such signal; the real host kills its handler there, too.
#[cfg(not(unix))]
pub fn ask(_child: &Child) -> bool {
    false
}

/// Keeps the process from outliving this one, however this one ends.
#[cfg(windows)]
pub struct Tie {
    /// Closing it ends the process. The system closes it when this process ends.
    _job: win32job::Job,
}

#[cfg(windows)]
impl Tie {
    /// # Errors
    /// Windows refuses it.
    pub fn to(child: &Child) -> io::Result<Self> {
        let mut limits = win32job::ExtendedLimitInfo::new();
        limits.limit_kill_on_job_close();
        let job = win32job::Job::create_with_limit_info(&limits).map_err(io::Error::other)?;
        if let Some(handle) = child.raw_handle() {
            job.assign_process(handle as isize).map_err(io::Error::other)?;
        }
        Ok(Self { _job: job })
    }
}

/// Elsewhere, the handler looks by itself whether its parent is still there.
#[cfg(not(windows))]
pub struct Tie;

#[cfg(not(windows))]
impl Tie {
    /// # Errors
    /// None.
    pub fn to(_child: &Child) -> io::Result<Self> {
        Ok(Self)
    }
}
