//! Reads the function app once: host.json and every function.json.

use std::{
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context, bail, ensure};

use super::{
    document::{Document, Node},
    function::{Disabled, Function, Trigger},
    logging::Logging,
    queue_options::QueueOptions,
    settings::Settings,
    time_span,
};
use crate::file;

/// The host's own limit if host.json has none.
const DEFAULT_TIMEOUT: Duration = Duration::from_secs(300);

/// A checked function app.
#[derive(Debug)]
pub struct App {
    pub root: PathBuf,
    /// `None` if host.json names no handler.
    handler: Option<Description>,
    /// `None` means unlimited.
    pub timeout: Option<Duration>,
    /// Whether plain HTTP functions get the original request instead of an envelope.
    pub forwards_http: bool,
    /// First segments of every HTTP function's path; may be empty.
    pub route_prefix: String,
    pub queues: QueueOptions,
    pub logging: Logging,
    pub functions: Vec<Function>,
    pub disabled: Vec<Disabled>,
}

/// The handler's description in host.json.
#[derive(Debug)]
struct Description {
    executable: String,
    arguments: Vec<String>,
    directory: String,
}

/// How to start the handler.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HandlerCommand {
    pub executable: PathBuf,
    pub arguments: Vec<String>,
    pub directory: PathBuf,
}

impl App {
    /// # Errors
    /// Names the file and the invalid member.
    pub fn load(root: &Path, settings: &Settings, schedule: Option<&str>, without: &[String]) -> anyhow::Result<Self> {
        let root = file::absolute(root)?;
        let document = Document::read(&root.join("host.json"))?;
        let host = document.root();
        let version = host.required("version")?;
        ensure!(version.str()? == "2.0", version.error("must be \"2.0\""));
        let handler = host.get("customHandler");
        let description = handler.as_ref().and_then(|handler| handler.get("description"));
        let forwards = handler.as_ref().and_then(|handler| handler.get("enableForwardingHttpRequest"));
        let extensions = host.get("extensions");
        let prefix = extensions.as_ref().and_then(|node| node.get("http")?.get("routePrefix"));
        let queues = extensions.as_ref().and_then(|node| node.get("queues"));
        let logging = host.get("logging").map_or(Ok(Logging::default()), |node| Logging::parse(&node))?;
        let (functions, disabled) = functions(&root, settings, schedule, without)?;
        if functions.is_empty() {
            match disabled.iter().find_map(|disabled| disabled.problem.as_ref()) {
                Some(problem) => bail!("no function can run: {problem}"),
                None => bail!("{} has no folder with a function.json", root.display()),
            }
        }
        Ok(Self {
            handler: description.map(|node| describe(&node)).transpose()?,
            timeout: host.get("functionTimeout").map_or(Ok(Some(DEFAULT_TIMEOUT)), |node| timeout(&node))?,
            forwards_http: forwards.map_or(Ok(false), |node| node.bool())?,
            route_prefix: prefix.map_or(Ok("api"), |node| node.str())?.trim_matches('/').to_owned(),
            queues: queues
                .map_or(Ok(QueueOptions::default()), |node| QueueOptions::parse(&node))?
                .overridden(settings)?,
            logging,
            functions,
            disabled,
            root,
        })
    }

    /// How to start the handler. `replacement` replaces host.json's executable.
    ///
    /// # Errors
    /// There is nothing to start.
    pub fn handler_command(&self, replacement: Option<&Path>) -> anyhow::Result<HandlerCommand> {
        let file = self.root.join("host.json");
        let member = format!("{}: customHandler.description.defaultExecutablePath", file.display());
        let (arguments, directory) =
            self.handler.as_ref().map_or((&[][..], ""), |handler| (&handler.arguments[..], &handler.directory));
        let executable = match (replacement, &self.handler) {
            (Some(path), _) => file::absolute(path).context("--handler")?,
            (None, None) => bail!("{member} is missing"),
            (None, Some(handler)) => {
                let in_app = self.root.join(&handler.executable);
                // A bare name may also be on the PATH.
                if !in_app.is_file() && handler.executable.contains('/') {
                    bail!("{member} names no file: {}", in_app.display());
                }
                if in_app.is_file() { in_app } else { PathBuf::from(&handler.executable) }
            }
        };
        Ok(HandlerCommand { executable, arguments: arguments.to_vec(), directory: self.root.join(directory) })
    }
}

fn timeout(node: &Node<'_>) -> anyhow::Result<Option<Duration>> {
    let text = node.str()?;
    if text == "-1" {
        return Ok(None);
    }
    let timeout = time_span::parse(text).ok_or_else(|| node.error("must be a time span hh:mm:ss, or \"-1\""))?;
    Ok(Some(timeout))
}

fn describe(description: &Node<'_>) -> anyhow::Result<Description> {
    let executable = description.required("defaultExecutablePath")?;
    ensure!(!executable.str()?.is_empty(), executable.error("must not be empty"));
    Ok(Description {
        executable: executable.str()?.to_owned(),
        arguments: description.get("arguments").map_or(Ok(Vec::new()), |node| node.strings())?,
        directory: description.get("workingDirectory").map_or(Ok(""), |node| node.str())?.to_owned(),
    })
}

fn functions(
    root: &Path,
    settings: &Settings,
    schedule: Option<&str>,
    without: &[String],
) -> anyhow::Result<(Vec<Function>, Vec<Disabled>)> {
    let (mut functions, mut disabled) = (Vec::new(), Vec::new());
    let entries = fs::read_dir(root).with_context(|| format!("{} cannot be read", root.display()))?;
    for entry in entries {
        let entry = entry?;
        let path = entry.path().join("function.json");
        if path.is_file() && without.iter().all(|name| entry.file_name() != name.as_str()) {
            match Function::load(&path, settings, schedule)? {
                Ok(function) => functions.push(function),
                Err(function) => disabled.push(function),
            }
        }
    }
    functions.sort_by(|one, other| one.name.cmp(&other.name));
    let routes = |function: &Function| match &function.trigger {
        Trigger::Http(http) => Some((http.route.clone(), http.methods.clone())),
        Trigger::Timer(_) | Trigger::Queue(_) => None,
    };
    for (index, function) in functions.iter().enumerate() {
        if let Some(route) = routes(function) {
            let other = functions[..index].iter().find(|other| routes(other).as_ref() == Some(&route));
            ensure!(
                other.is_none(),
                "{} and {} have the same route",
                function.name,
                other.map_or("", |other| &other.name)
            );
        }
    }
    Ok((functions, disabled))
}
