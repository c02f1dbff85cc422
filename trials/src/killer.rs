//! Ends the handler with SIGKILL at the exact moment when a stand-in reaches a step.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use emulators::steps::{Step, Steps, Then};
use rustix::{
    io::Errno,
    process::{Pid, Signal, WaitId, WaitIdOptions, kill_process, waitid},
};
use tokio::sync::watch;

/// Which process is killed, and when. Cheap to clone.
#[derive(Clone, Default)]
pub struct Killer(Arc<Shared>);

#[derive(Default)]
struct Shared {
    state: Mutex<State>,
    kills: watch::Sender<u32>,
}

#[derive(Default)]
struct State {
    target: Option<Pid>,
    armed: Option<(Step, u32)>,
}

impl Killer {
    /// For the options of the stand-ins.
    #[must_use]
    pub fn steps(&self) -> Steps {
        let killer = self.clone();
        Steps::new(move |step| killer.reached(step))
    }

    /// The process to kill, a child of this process. `None` if there is none now.
    pub fn aim(&self, pid: Option<u32>) {
        self.state().target = pid.and_then(|pid| Pid::from_raw(i32::try_from(pid).ok()?));
    }

    /// Kills when `step` is reached for the `nth` time from now on (1 is the next).
    pub fn arm(&self, step: Step, nth: u32) {
        self.state().armed = Some((step, nth));
    }

    /// Disarms. `false` if it was no longer armed.
    #[must_use]
    pub fn disarm(&self) -> bool {
        self.state().armed.take().is_some()
    }

    /// How often it has killed. The caller may wait for a change.
    #[must_use]
    pub fn kills(&self) -> watch::Receiver<u32> {
        self.0.kills.subscribe()
    }

    /// Kills now, even if it is armed.
    pub fn kill(&self) {
        let mut state = self.state();
        state.armed = None;
        self.kill_target(&mut state);
    }

    fn reached(&self, reached: Step) -> Then {
        let mut state = self.state();
        match &mut state.armed {
            Some((step, nth)) if *step == reached && *nth > 1 => {
                *nth -= 1;
                Then::GoOn
            }
            Some((step, _)) if *step == reached => {
                state.armed = None;
                self.kill_target(&mut state);
                Then::Lose
            }
            _ => Then::GoOn,
        }
    }

    /// Returns when the process is gone, with all its threads and connections. The process stays a zombie, so that its
    /// parent task still notices its end.
    fn kill_target(&self, state: &mut State) {
        if let Some(pid) = state.target.take()
            && is_running(pid)
            && kill_process(pid, Signal::KILL).is_ok()
        {
            let _ = waitid(WaitId::Pid(pid), WaitIdOptions::EXITED | WaitIdOptions::NOWAIT);
        }
        self.0.kills.send_modify(|kills| *kills += 1);
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whether it is a running child of this process. Once a child was waited for, its number may belong to another
/// process.
fn is_running(pid: Pid) -> bool {
    let options = WaitIdOptions::EXITED | WaitIdOptions::NOWAIT | WaitIdOptions::NOHANG;
    loop {
        match waitid(WaitId::Pid(pid), options) {
            Ok(ended) => return ended.is_none(),
            Err(Errno::INTR) => {}
            Err(_) => return false,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::process::{Child, Command, Stdio};

    use super::*;

    fn child() -> Child {
        Command::new("cat").stdin(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap()
    }

    fn ended(child: &mut Child) -> bool {
        child.try_wait().unwrap().is_some()
    }

    #[test]
    fn the_nth_time_kills_on_the_spot() {
        let killer = Killer::default();
        let mut child = child();
        killer.aim(Some(child.id()));
        killer.arm(Step::MessageTaken, 2);
        assert_eq!(killer.reached(Step::MessageCame), Then::GoOn);
        assert_eq!(killer.reached(Step::MessageTaken), Then::GoOn);
        assert!(!ended(&mut child));
        assert_eq!(killer.reached(Step::MessageTaken), Then::Lose);
        assert!(ended(&mut child), "no later than that");
        assert_eq!(*killer.kills().borrow(), 1);
        assert_eq!(killer.reached(Step::MessageTaken), Then::GoOn, "once");
    }

    #[test]
    fn only_a_running_child_is_killed() {
        let killer = Killer::default();
        let mut gone = child();
        gone.kill().unwrap();
        gone.wait().unwrap();
        for target in [None, Some(gone.id()), Some(1)] {
            killer.aim(target);
            killer.kill();
        }
        assert_eq!(*killer.kills().borrow(), 3, "those who wait for a kill go on");
    }
}
