//! Starts the handler's process, reads its output, and starts it again when it dies.

use std::{
    collections::VecDeque,
    io,
    process::{ExitStatus, Stdio},
    sync::{Arc, Mutex},
    time::Duration,
};

use tokio::{
    io::{AsyncBufReadExt, AsyncRead, AsyncReadExt, BufReader},
    process::{Child, Command},
    task::JoinSet,
    time::{Instant, timeout},
};

use super::{
    app::HandlerCommand,
    ending,
    events::{Event, Level, Sender, Stream, send},
    handler::{Control, State},
    lifetime::Lifetime,
    settings::Settings,
};

/// After this time without a failure, former failures are forgotten.
const FORGOTTEN_AFTER: Duration = Duration::from_secs(30 * 60);
/// How many lines of stderr the host quotes.
const QUOTED: usize = 3;
/// Longest line, in bytes. Longer lines are split.
const LONGEST_LINE: u64 = 64 * 1024;
/// How long the output of an ended handler is still read: a process that it left behind may keep the output open.
const LAST_WORDS: Duration = Duration::from_secs(1);

pub struct Process {
    pub command: HandlerCommand,
    pub environment: Settings,
    /// Whether the handler does not get this process's environment besides.
    pub only_settings: bool,
    /// How often the handler is restarted after a failure: an exit with an error, or no answer in time.
    pub restarts: usize,
    /// How long a handler may take until its first answer.
    pub ready_within: Duration,
    /// How long a handler may take to end after SIGTERM. Zero: it gets SIGKILL at once.
    pub stop_within: Duration,
    pub control: Control,
    pub events: Sender,
    pub lifetime: Lifetime,
}

type LastLines = Arc<Mutex<VecDeque<String>>>;

/// How one run of the handler ended.
enum End {
    Exited(ExitStatus),
    NeverReady,
    Killed,
    Stopped,
}

impl Process {
    /// Runs the handler until it is gone for good.
    pub async fn supervise(mut self) {
        let (mut failures, mut last_failure) = (0, Instant::now());
        for start in 1.. {
            let last_lines = LastLines::default();
            let end = self.run(start, &last_lines).await;
            let failure = match end {
                Err(error) => {
                    let reason = format!("cannot start {}: {error}", self.command.executable.display());
                    return self.control.gone(reason, &self.events);
                }
                Ok(End::Stopped) => return self.control.stopped(&self.lifetime, &self.events),
                // Neither counts: the host has killed it, or it has ended well.
                Ok(End::Killed) => continue,
                Ok(End::Exited(status)) if status.success() => {
                    tracing::warn!("the handler exited with code 0 and is started again");
                    continue;
                }
                Ok(End::Exited(status)) => format!("it exited with {status}"),
                Ok(End::NeverReady) => self.control.never_ready(self.ready_within),
            };
            if last_failure.elapsed() >= FORGOTTEN_AFTER {
                failures = 0;
            }
            (failures, last_failure) = (failures + 1, Instant::now());
            if failures > self.restarts {
                let lines = Vec::from(std::mem::take(&mut *last_lines.lock().expect("no panic while locked")));
                let quoted = if lines.is_empty() { "nothing on stderr".to_owned() } else { lines.join("\n") };
                let reason = format!("the handler failed {failures} times, the last time because {failure}: {quoted}");
                return self.control.gone(reason, &self.events);
            }
        }
    }

    async fn run(&mut self, start: u64, last_lines: &LastLines) -> io::Result<End> {
        let mut command = Command::new(&self.command.executable);
        if self.only_settings {
            command.env_clear();
        }
        let mut child = command
            .args(&self.command.arguments)
            .current_dir(&self.command.directory)
            .envs(&self.environment)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()?;
        // A handler that cannot be tied works all the same.
        let tie = ending::Tie::to(&child);
        if let Err(error) = &tie {
            tracing::warn!("the handler may outlive this process: {error}");
        }
        tracing::info!(executable = %self.command.executable.display(), pid = child.id(), "the handler is started");
        send(&self.events, Event::HandlerStarted { pid: child.id().unwrap_or_default() });
        let mut readers = self.readers(&mut child, last_lines);
        let (control, events, ready_within) = (&mut self.control, &self.events, self.ready_within);
        let life = async {
            if !control.becomes_ready(start, ready_within, events).await {
                return End::NeverReady;
            }
            // The sender lives as long as the handler can get calls.
            let _ = control.kill.wait_for(|newest| *newest >= start).await;
            End::Killed
        };
        let end = tokio::select! {
            status = child.wait() => End::Exited(status?),
            end = life => end,
            () = self.lifetime.kill.cancelled() => End::Stopped,
            () = self.lifetime.stop.cancelled() => {
                self.terminate(&mut child).await;
                End::Stopped
            }
        };
        self.control.state.send_replace(State::Starting);
        if !matches!(end, End::Exited(_)) {
            child.kill().await?;
        }
        // Already reaped: this only fetches the status.
        let status = child.wait().await?;
        let _ = timeout(LAST_WORDS, async { while readers.join_next().await.is_some() {} }).await;
        tracing::info!(%status, "the handler has ended");
        send(&self.events, Event::HandlerExited { status });
        Ok(end)
    }

    /// Asks the handler to end, and waits a while for its end.
    async fn terminate(&self, child: &mut Child) {
        if !self.stop_within.is_zero() && ending::ask(child) {
            tokio::select! {
                _ = timeout(self.stop_within, child.wait()) => {}
                () = self.lifetime.kill.cancelled() => {}
            }
        }
    }

    fn readers(&self, child: &mut Child, last_lines: &LastLines) -> JoinSet<()> {
        let mut readers = JoinSet::new();
        if let Some(stdout) = child.stdout.take() {
            readers.spawn(read(Stream::Stdout, stdout, self.events.clone(), last_lines.clone()));
        }
        if let Some(stderr) = child.stderr.take() {
            readers.spawn(read(Stream::Stderr, stderr, self.events.clone(), last_lines.clone()));
        }
        readers
    }
}

async fn read(stream: Stream, source: impl AsyncRead + Unpin, events: Sender, last_lines: LastLines) {
    let mut source = BufReader::new(source);
    let mut line = Vec::new();
    while let Ok(1..) = (&mut source).take(LONGEST_LINE).read_until(b'\n', &mut line).await {
        let text = String::from_utf8_lossy(line.trim_ascii_end()).into_owned();
        line.clear();
        if stream == Stream::Stderr {
            let mut lines = last_lines.lock().expect("no panic while locked");
            if lines.len() == QUOTED {
                lines.pop_front();
            }
            lines.push_back(text.clone());
        }
        send(&events, Event::Line { stream, level: Level::of(stream, &text), text });
    }
}
