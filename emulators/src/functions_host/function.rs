//! One function.json: a timer or an HTTP function.

use std::{path::Path, time::Duration};

use anyhow::{anyhow, bail, ensure};

use super::{
    document::{Document, Node},
    route::Route,
    schedule::Schedule,
    settings::{self, Settings},
    time_span,
};

/// Longest name that Azure takes.
const LONGEST_NAME: usize = 127;
const METHODS: [&str; 7] = ["GET", "POST", "PUT", "DELETE", "HEAD", "PATCH", "OPTIONS"];

/// A function of the app.
#[derive(Clone, Debug)]
pub struct Function {
    /// The folder's name, and the handler's path.
    pub name: String,
    pub trigger: Trigger,
}

#[derive(Clone, Debug)]
pub enum Trigger {
    Timer(TimerTrigger),
    Http(HttpTrigger),
}

#[derive(Clone, Debug)]
pub struct TimerTrigger {
    pub binding: String,
    pub schedule: Schedule,
    /// Whether the host keeps its `ScheduleStatus`.
    pub monitored: bool,
    pub run_on_startup: bool,
    pub retry: Option<Retry>,
}

#[derive(Clone, Debug)]
pub struct HttpTrigger {
    pub binding: String,
    pub route: Route,
    /// Upper case; empty: all.
    pub methods: Vec<String>,
    /// Name of the `http` output.
    pub output: Option<String>,
}

/// Repeats a failed run before the next tick.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Retry {
    /// `None`: for ever.
    pub most: Option<u64>,
    pub delay: RetryDelay,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RetryDelay {
    Fixed(Duration),
    Exponential { least: Duration, most: Duration },
}

impl Retry {
    /// The pause after the failed attempt `attempt` (the first is 0), `None` when it was the last one.
    /// `random` in 0..1 spreads an exponential delay's growth by a fifth either way.
    pub fn pause(&self, attempt: u64, random: f64) -> Option<Duration> {
        if self.most.is_some_and(|most| attempt >= most) {
            return None;
        }
        Some(match self.delay {
            RetryDelay::Fixed(delay) => delay,
            RetryDelay::Exponential { least, most } => {
                let growth = (2f64.powf(attempt as f64) - 1.0) * (0.8 + 0.4 * random);
                let pause = least.as_secs_f64() * (1.0 + growth);
                Duration::try_from_secs_f64(pause).unwrap_or(most).min(most)
            }
        })
    }
}

impl Function {
    /// `None` when it is disabled. `schedule` replaces a timer's own.
    ///
    /// # Errors
    /// Names the file and the member at fault, and what this host does not have.
    pub fn load(path: &Path, settings: &Settings, schedule: Option<&str>) -> anyhow::Result<Option<Self>> {
        let folder = path.parent().and_then(Path::file_name).unwrap_or_default();
        let name = folder.to_string_lossy().into_owned();
        let valid = name.len() <= LONGEST_NAME
            && name.starts_with(|letter: char| letter.is_ascii_alphabetic())
            && name.chars().all(|letter| letter.is_ascii_alphanumeric() || "_-".contains(letter));
        ensure!(
            valid,
            "{}: the folder's name is no function name (a letter, then letters, digits, _ and -)",
            path.display()
        );

        let document = Document::read(path)?;
        let root = document.root();
        let switched_off = settings.get(&format!("AzureWebJobs.{name}.Disabled"));
        let disabled = root.get("disabled").map_or(Ok(false), |node| node.bool())?;
        if disabled || switched_off.is_some_and(|text| text == "1" || text.eq_ignore_ascii_case("true")) {
            return Ok(None);
        }
        let mut triggers = Vec::new();
        let mut output = None;
        for binding in root.required("bindings")?.list()? {
            let kind = binding.required("type")?;
            match kind.str()? {
                "timerTrigger" | "httpTrigger" => triggers.push(binding),
                "http" => output = Some(name_of(&binding, "out")?),
                "queueTrigger" | "queue" => {
                    bail!(kind.error(format_args!("{} of {name}: this host has no queues", kind.value())));
                }
                _ => bail!(kind.error(format_args!("{} of {name} is not supported by this host", kind.value()))),
            }
        }
        let [trigger] = &triggers[..] else {
            bail!(root.error(format_args!("has {} triggers in bindings; a function has one", triggers.len())));
        };
        let retry = root.get("retry");
        let trigger = if trigger.required("type")?.str()? == "timerTrigger" {
            ensure!(output.is_none(), root.error("has an http output, which a timer has no use for"));
            Trigger::Timer(timer(trigger, retry, settings, schedule)?)
        } else {
            if let Some(retry) = retry {
                bail!(retry.error("is for timers only"));
            }
            Trigger::Http(http(trigger, &name, output)?)
        };
        Ok(Some(Self { name, trigger }))
    }
}

fn name_of(binding: &Node<'_>, direction: &str) -> anyhow::Result<String> {
    let given = match binding.get("direction") {
        Some(node) => node,
        None if direction == "in" => return Ok(binding.required("name")?.str()?.to_owned()),
        None => binding.required("direction")?,
    };
    ensure!(given.str()? == direction, given.error(format_args!("must be {direction:?}")));
    Ok(binding.required("name")?.str()?.to_owned())
}

fn timer(
    trigger: &Node<'_>,
    retry: Option<Node<'_>>,
    settings: &Settings,
    schedule: Option<&str>,
) -> anyhow::Result<TimerTrigger> {
    let own = trigger.required("schedule")?;
    let schedule = match schedule {
        Some(text) => Schedule::parse(text).map_err(|problem| anyhow!("--schedule {problem}"))?,
        None => {
            let unknown = || own.error(format_args!("is {}: there is no such setting", own.value()));
            let text = settings::resolved(settings, own.str()?).ok_or_else(unknown)?;
            Schedule::parse(text).map_err(|problem| own.error(format_args!("is wrong: {problem}")))?
        }
    };
    let flag = |name, default| trigger.get(name).map_or(Ok(default), |node| node.bool());
    Ok(TimerTrigger {
        binding: name_of(trigger, "in")?,
        monitored: flag("useMonitor", true)? && schedule.is_monitored(chrono::Utc::now()),
        schedule,
        run_on_startup: flag("runOnStartup", false)?,
        retry: retry.map(|node| retry_of(&node)).transpose()?,
    })
}

fn retry_of(node: &Node<'_>) -> anyhow::Result<Retry> {
    let span = |name| {
        let node = node.required(name)?;
        time_span::parse(node.str()?).ok_or_else(|| node.error("must be a time span hh:mm:ss"))
    };
    let count = node.required("maxRetryCount")?;
    let most = match count.integer()? {
        -1 => None,
        most => Some(u64::try_from(most).map_err(|_| count.error("must be -1 or more"))?),
    };
    let strategy = node.required("strategy")?;
    let delay = match strategy.str()? {
        "fixedDelay" => RetryDelay::Fixed(span("delayInterval")?),
        "exponentialBackoff" => {
            let (least, most) = (span("minimumInterval")?, span("maximumInterval")?);
            ensure!(least <= most, node.error("has a minimumInterval above its maximumInterval"));
            RetryDelay::Exponential { least, most }
        }
        _ => bail!(strategy.error("must be \"fixedDelay\" or \"exponentialBackoff\"")),
    };
    Ok(Retry { most, delay })
}

fn http(trigger: &Node<'_>, name: &str, output: Option<String>) -> anyhow::Result<HttpTrigger> {
    let route = match trigger.get("route") {
        Some(node) => Route::parse(node.str()?).map_err(|problem| node.error(format_args!("is wrong: {problem}")))?,
        None => Route::parse(name).map_err(|problem| trigger.error(problem))?,
    };
    if let Some(level) = trigger.get("authLevel") {
        let known = ["anonymous", "function", "admin"]
            .iter()
            .any(|known| known.eq_ignore_ascii_case(level.str().unwrap_or_default()));
        ensure!(known, level.error("must be \"anonymous\", \"function\" or \"admin\""));
    }
    let mut methods = Vec::new();
    for node in trigger.get("methods").map_or(Ok(Vec::new()), |node| node.list())? {
        let method = node.str()?.to_ascii_uppercase();
        ensure!(METHODS.contains(&method.as_str()), node.error(format_args!("must be one of {METHODS:?}")));
        methods.push(method);
    }
    Ok(HttpTrigger { binding: name_of(trigger, "in")?, route, methods, output })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn retries_end_and_grow() {
        let fixed = Retry { most: Some(2), delay: RetryDelay::Fixed(Duration::from_secs(10)) };
        let pauses: Vec<_> = (0..3).map(|attempt| fixed.pause(attempt, 0.5)).collect();
        assert_eq!(pauses, [Some(Duration::from_secs(10)), Some(Duration::from_secs(10)), None]);
        let delay = RetryDelay::Exponential { least: Duration::from_secs(4), most: Duration::from_secs(60) };
        let growing = Retry { most: None, delay };
        let pauses: Vec<_> = (0..5).map(|attempt| growing.pause(attempt, 0.5).unwrap().as_secs()).collect();
        assert_eq!(pauses, [4, 8, 16, 32, 60]);
        assert_eq!(growing.pause(u64::MAX, 0.5), Some(Duration::from_secs(60)));
    }
}
