//! Reads `logging` of host.json: which log records go to Application Insights.

use anyhow::bail;

use super::{document::Node, events::Level};

/// Without a `default`, only these categories are logged.
const OWN_CATEGORIES: [&str; 4] = ["Host.", "Function.", "Worker.", "Microsoft.Azure.WebJobs."];
const DEFAULT_ITEMS_PER_SECOND: f64 = 20.0;

/// The least level that is logged. `None`: nothing is.
type Least = Option<Level>;

#[derive(Clone, Debug, PartialEq)]
pub struct Logging {
    default: Option<Least>,
    /// By the first part of the category's name.
    categories: Vec<(String, Least)>,
    /// `None`: everything is sent.
    pub sampling: Option<Sampling>,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Sampling {
    pub items_per_second: f64,
    /// Types that are always sent, in lower case.
    pub excluded: Vec<String>,
}

impl Default for Sampling {
    fn default() -> Self {
        Self { items_per_second: DEFAULT_ITEMS_PER_SECOND, excluded: Vec::new() }
    }
}

impl Default for Logging {
    fn default() -> Self {
        Self { default: None, categories: Vec::new(), sampling: Some(Sampling::default()) }
    }
}

impl Logging {
    /// # Errors
    /// Names the invalid member.
    pub fn parse(logging: &Node<'_>) -> anyhow::Result<Self> {
        let mut read = Self::default();
        for (category, node) in logging.get("logLevel").map_or(Ok(Vec::new()), |levels| levels.members())? {
            let least = least(&node)?;
            if category.eq_ignore_ascii_case("default") {
                read.default = Some(least);
            } else {
                read.categories.push((category.to_owned(), least));
            }
        }
        let settings = logging.get("applicationInsights").and_then(|node| node.get("samplingSettings"));
        let Some(settings) = settings else { return Ok(read) };
        if !settings.get("isEnabled").map_or(Ok(true), |node| node.bool())? {
            read.sampling = None;
            return Ok(read);
        }
        let mut sampling = Sampling::default();
        if let Some(node) = settings.get("maxTelemetryItemsPerSecond") {
            let number = node.value().as_f64().filter(|number| *number >= 0.0);
            sampling.items_per_second = number.ok_or_else(|| node.error("must be a number, 0 or more"))?;
        }
        let excluded = settings.get("excludedTypes").map_or(Ok(""), |node| node.str())?;
        sampling.excluded = excluded.split(';').map(|kind| kind.trim().to_ascii_lowercase()).collect();
        read.sampling = Some(sampling);
        Ok(read)
    }

    /// Whether a record of this category and level is logged. The longest name decides.
    pub fn allows(&self, category: &str, level: Level) -> bool {
        let begins = |name: &str| category.get(..name.len()).is_some_and(|start| start.eq_ignore_ascii_case(name));
        let named = self.categories.iter().filter(|(name, _)| begins(name)).max_by_key(|(name, _)| name.len());
        let least = match (named, self.default) {
            (Some((_, least)), _) => *least,
            (None, Some(least)) => least,
            (None, None) => OWN_CATEGORIES.iter().any(|name| begins(name)).then_some(Level::Information),
        };
        least.is_some_and(|least| level >= least)
    }
}

fn least(node: &Node<'_>) -> anyhow::Result<Least> {
    Ok(match node.str()?.to_ascii_lowercase().as_str() {
        "trace" | "debug" | "information" => Some(Level::Information),
        "warning" => Some(Level::Warning),
        "error" => Some(Level::Error),
        "critical" | "none" => None,
        _ => bail!(node.error("must be a log level")),
    })
}
