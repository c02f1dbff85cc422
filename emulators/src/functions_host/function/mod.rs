//! Reads one function.json: a timer, an HTTP or a queue function, with its outputs.

mod queue;
mod retry;

use std::path::Path;

use anyhow::{anyhow, bail, ensure};

pub use self::{
    queue::{QueueBinding, default_account},
    retry::Retry,
};
use super::{
    document::{Document, Node},
    route::Route,
    schedule::Schedule,
    settings::{self, Settings},
};

/// Longest name that Azure accepts.
const LONGEST_NAME: usize = 127;
const METHODS: [&str; 7] = ["GET", "POST", "PUT", "DELETE", "HEAD", "PATCH", "OPTIONS"];

/// A function of the app.
#[derive(Clone, Debug)]
pub struct Function {
    /// The folder's name. It is also the path at the handler.
    pub name: String,
    pub trigger: Trigger,
    pub queue_outputs: Vec<QueueBinding>,
}

/// A function that does not run: it is switched off, or needs a setting that the app does not have. The host reads it all
/// the same.
#[derive(Clone, Debug)]
pub struct Disabled {
    pub name: String,
    /// What is wrong with it. It is logged, and the other functions run.
    pub problem: Option<String>,
}

/// A `%Setting%` that the app does not have.
#[derive(Debug)]
pub struct MissingSetting(String);

impl std::fmt::Display for MissingSetting {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.write_str(&self.0)
    }
}

impl std::error::Error for MissingSetting {}

#[derive(Clone, Debug)]
pub enum Trigger {
    Timer(TimerTrigger),
    Http(HttpTrigger),
    Queue(QueueBinding),
}

#[derive(Clone, Debug)]
pub struct TimerTrigger {
    pub binding: String,
    pub schedule: Schedule,
    /// As it was written.
    pub schedule_text: String,
    /// Whether the host keeps its `ScheduleStatus`.
    pub monitored: bool,
    pub run_on_startup: bool,
    pub retry: Option<Retry>,
}

#[derive(Clone, Debug)]
pub struct HttpTrigger {
    pub binding: String,
    pub route: Route,
    /// In upper case. Empty means all methods.
    pub methods: Vec<String>,
    /// Whether callers show a key.
    pub needs_key: bool,
    /// Name of the `http` output.
    pub output: Option<String>,
}

impl Function {
    /// `schedule` replaces a timer's own schedule.
    ///
    /// # Errors
    /// Names the file and the member that is invalid or not supported by this host.
    pub fn load(path: &Path, settings: &Settings, schedule: Option<&str>) -> anyhow::Result<Result<Self, Disabled>> {
        let folder = path.parent().and_then(Path::file_name).unwrap_or_default();
        let name = folder.to_string_lossy().into_owned();
        let valid = name.len() <= LONGEST_NAME
            && name.starts_with(|letter: char| letter.is_ascii_alphabetic())
            && name.chars().all(|letter| letter.is_ascii_alphanumeric() || "_-".contains(letter));
        ensure!(
            valid,
            "{}: the folder's name is not a function name (a letter, then letters, digits, _ and -)",
            path.display()
        );

        let document = Document::read(path)?;
        let root = document.root();
        let is_on = |text: &String| text == "1" || text.eq_ignore_ascii_case("true");
        let switches = [format!("AzureWebJobs.{name}.Disabled"), format!("AzureWebJobs_{name}_Disabled")];
        let is_switched_off = switches.iter().filter_map(|switch| settings.get(switch)).any(is_on);
        let is_disabled = root.get("disabled").map_or(Ok(false), |node| node.bool())?;
        let read = Self::read(&name, &root, settings, schedule);
        if is_disabled || is_switched_off {
            return Ok(Err(Disabled { name, problem: read.err().map(|error| error.to_string()) }));
        }
        match read {
            Ok(function) => Ok(Ok(function)),
            Err(error) if error.is::<MissingSetting>() => Ok(Err(Disabled { name, problem: Some(error.to_string()) })),
            Err(error) => Err(error),
        }
    }

    fn read(name: &str, root: &Node<'_>, settings: &Settings, schedule: Option<&str>) -> anyhow::Result<Self> {
        let (mut triggers, mut queue_outputs) = (Vec::new(), Vec::<QueueBinding>::new());
        let mut output = None;
        for binding in root.required("bindings")?.list()? {
            let kind = binding.required("type")?;
            match kind.str()? {
                "timerTrigger" | "httpTrigger" | "queueTrigger" => triggers.push(binding),
                "http" => output = Some(name_of(&binding, "out")?),
                "queue" => queue_outputs.push(queue::parse(&binding, "out", settings)?),
                _ => bail!(kind.error(format_args!("{} of {name} is not supported by this host", kind.value()))),
            }
        }
        let [trigger] = &triggers[..] else {
            bail!(root.error(format_args!("has {} triggers in bindings; a function has one", triggers.len())));
        };
        let retry = root.get("retry");
        let kind = trigger.required("type")?.str()?;
        if let Some(retry) = retry.as_ref().filter(|_| kind != "timerTrigger") {
            bail!(retry.error("is for timers only"));
        }
        if kind != "httpTrigger" {
            ensure!(output.is_none(), root.error("has an http output, which only an HTTP function has a use for"));
        }
        let trigger = match kind {
            "timerTrigger" => Trigger::Timer(timer(trigger, retry, settings, schedule)?),
            "queueTrigger" => Trigger::Queue(queue::parse(trigger, "in", settings)?),
            _ => Trigger::Http(http(trigger, name, output)?),
        };
        Ok(Self { name: name.to_owned(), trigger, queue_outputs })
    }

    /// Its name and its schedule, if it is a timer.
    pub fn timer(&self) -> Option<(String, String)> {
        match &self.trigger {
            Trigger::Timer(timer) => Some((self.name.clone(), timer.schedule_text.clone())),
            Trigger::Http(_) | Trigger::Queue(_) => None,
        }
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
    let (text, schedule) = match schedule {
        Some(text) => (text, Schedule::parse(text).map_err(|problem| anyhow!("--schedule {problem}"))?),
        None => {
            let unknown =
                || MissingSetting(own.error(format_args!("is {}: there is no such setting", own.value())).to_string());
            let text = settings::resolved(settings, own.str()?).ok_or_else(unknown)?;
            (text, Schedule::parse(text).map_err(|problem| own.error(format_args!("is wrong: {problem}")))?)
        }
    };
    let flag = |name, default| trigger.get(name).map_or(Ok(default), |node| node.bool());
    Ok(TimerTrigger {
        binding: name_of(trigger, "in")?,
        monitored: flag("useMonitor", true)? && schedule.is_monitored(chrono::Utc::now()),
        schedule,
        schedule_text: text.to_owned(),
        run_on_startup: flag("runOnStartup", false)?,
        retry: retry.map(|node| retry::parse(&node)).transpose()?,
    })
}

fn http(trigger: &Node<'_>, name: &str, output: Option<String>) -> anyhow::Result<HttpTrigger> {
    let route = match trigger.get("route") {
        Some(node) => Route::parse(node.str()?).map_err(|problem| node.error(format_args!("is wrong: {problem}")))?,
        None => Route::parse(name).map_err(|problem| trigger.error(problem))?,
    };
    let level = trigger.get("authLevel");
    let is =
        |known: &str| level.as_ref().is_none_or(|level| known.eq_ignore_ascii_case(level.str().unwrap_or_default()));
    let needs_key = is("function") || is("admin");
    if let Some(level) = &level {
        ensure!(needs_key || is("anonymous"), level.error("must be \"anonymous\", \"function\" or \"admin\""));
    }
    let mut methods = Vec::new();
    for node in trigger.get("methods").map_or(Ok(Vec::new()), |node| node.list())? {
        let method = node.str()?.to_ascii_uppercase();
        ensure!(METHODS.contains(&method.as_str()), node.error(format_args!("must be one of {METHODS:?}")));
        methods.push(method);
    }
    Ok(HttpTrigger { binding: name_of(trigger, "in")?, route, methods, needs_key, output })
}
