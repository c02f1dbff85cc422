//! Reads the parameters of a request.

use super::state::State;
use crate::iot_hub::devices::Owner;

/// Rows per page, unless `limit` changes it. An HTML page has fewer if they are long.
const LIMIT: usize = 50;
const MAX_LIMIT: usize = 1000;
/// Far more than the number of sites and devices.
const MAX_FROM: usize = 100_000_000;
/// Longest search text, in bytes.
const MAX_SEARCH: usize = 200;

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Query {
    pub format: Format,
    pub wanted: Option<Wanted>,
    pub sort: Sort,
    /// Only items in this state.
    pub state: Option<State>,
    /// Only items of this system, customer or application.
    pub within: Option<Within>,
    /// Only items whose name or group contains this text, in upper or lower case.
    pub search: String,
    /// The number of items to skip.
    pub from: usize,
    pub limit: usize,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Format {
    #[default]
    Html,
    Json,
}

/// The order of the list.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Sort {
    /// The most troubled first.
    #[default]
    Trouble,
    /// The item that has had no new value for the longest time comes first.
    Lag,
    Name,
}

impl Sort {
    pub const ALL: [Self; 3] = [Self::Trouble, Self::Lag, Self::Name];

    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Trouble => "trouble",
            Self::Lag => "lag",
            Self::Name => "name",
        }
    }
}

/// A part of the list: a system, or one of its customers or applications.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Within {
    pub system: &'static str,
    pub group: Option<String>,
}

impl Within {
    /// The parameter's name and value.
    #[must_use]
    pub fn parameter<'a>(system: &'a str, group: Option<&'a str>) -> (&'static str, &'a str) {
        match group {
            None => ("system", system),
            Some(group) if system == Owner::RAPIDM2M => ("customer", group),
            Some(group) => ("application", group),
        }
    }
}

/// The site or device that the request names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wanted {
    pub system: &'static str,
    pub group: Option<String>,
    pub name: String,
}

impl Query {
    /// # Errors
    /// The parameter that is wrong, and what to write instead.
    pub fn read<'a>(parameter: impl Fn(&str) -> Option<&'a str>) -> Result<Self, String> {
        let parameter = |name| parameter(name).filter(|value| !value.is_empty());
        let format = match parameter("format") {
            None | Some("html") => Format::Html,
            Some("json") => Format::Json,
            Some(other) => return Err(format!("format is {other:?}: write html or json")),
        };
        let sort = match parameter("sort") {
            None => Sort::default(),
            Some(text) => Sort::ALL
                .into_iter()
                .find(|sort| sort.name() == text)
                .ok_or_else(|| format!("sort is {text:?}: write trouble, lag or name"))?,
        };
        let state = match parameter("state") {
            None => None,
            Some(text) => Some(
                State::ALL
                    .into_iter()
                    .find(|state| state.name() == text)
                    .ok_or_else(|| format!("state is {text:?}: write {}", State::ALL.map(State::name).join(", ")))?,
            ),
        };
        let number = |name, default: usize, most: usize| match parameter(name) {
            None => Ok(default),
            Some(text) => text
                .parse()
                .ok()
                .filter(|number| *number <= most)
                .ok_or_else(|| format!("{name} is {text:?}: write a number up to {most}")),
        };
        let wanted = match (parameter("site"), parameter("device")) {
            (None, None) => None,
            (Some(_), Some(_)) => return Err("site and device are both there: ask for one of them".into()),
            (Some(site), None) => Some((Owner::RAPIDM2M, "customer", site)),
            (None, Some(device)) => Some((Owner::THINGS_NETWORK, "application", device)),
        };
        let wanted = wanted.map(|(system, group, name)| Wanted {
            system,
            group: parameter(group).map(str::to_owned),
            name: name.to_owned(),
        });
        let system = match parameter("system") {
            None => None,
            Some(text) => {
                Some([Owner::RAPIDM2M, Owner::THINGS_NETWORK].into_iter().find(|system| *system == text).ok_or_else(
                    || format!("system is {text:?}: write {} or {}", Owner::RAPIDM2M, Owner::THINGS_NETWORK),
                )?)
            }
        };
        let within = match (system, parameter("customer"), parameter("application")) {
            _ if wanted.is_some() => None,
            (None, None, None) => None,
            (Some(system), None, None) => Some(Within { system, group: None }),
            (None, Some(customer), None) => Some(Within { system: Owner::RAPIDM2M, group: Some(customer.to_owned()) }),
            (None, None, Some(application)) => {
                Some(Within { system: Owner::THINGS_NETWORK, group: Some(application.to_owned()) })
            }
            _ => return Err("ask for one of system, customer and application".into()),
        };
        let search = parameter("q").unwrap_or_default().trim();
        if search.len() > MAX_SEARCH {
            return Err(format!("q is longer than {MAX_SEARCH} bytes"));
        }
        Ok(Self {
            format,
            wanted,
            sort,
            state,
            within,
            search: search.to_lowercase(),
            from: number("from", 0, MAX_FROM)?,
            limit: number("limit", LIMIT, MAX_LIMIT)?.max(1),
        })
    }

    /// The URL query for the same list from another position.
    #[must_use]
    pub fn url(&self, from: usize) -> String {
        let mut parts = url::form_urlencoded::Serializer::for_suffix(String::from("?"), 1);
        if self.sort != Sort::default() {
            parts.append_pair("sort", self.sort.name());
        }
        if let Some(state) = self.state {
            parts.append_pair("state", state.name());
        }
        if let Some(Within { system, group }) = &self.within {
            let (name, value) = Within::parameter(system, group.as_deref());
            parts.append_pair(name, value);
        }
        if !self.search.is_empty() {
            parts.append_pair("q", &self.search);
        }
        if self.limit != LIMIT {
            parts.append_pair("limit", &self.limit.to_string());
        }
        if from > 0 {
            parts.append_pair("from", &from.to_string());
        }
        parts.finish()
    }
}

impl Wanted {
    /// The URL query of the item's page.
    #[must_use]
    pub fn url(system: &str, group: &str, name: &str) -> String {
        let [what, of] = if system == Owner::RAPIDM2M { ["site", "customer"] } else { ["device", "application"] };
        let mut parts = url::form_urlencoded::Serializer::for_suffix(String::from("?"), 1);
        parts.append_pair(what, name).append_pair(of, group);
        parts.finish()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::*;

    fn read(text: &str) -> Result<Query, String> {
        let pairs: HashMap<String, String> =
            url::form_urlencoded::parse(text.trim_start_matches('?').as_bytes()).into_owned().collect();
        Query::read(|name| pairs.get(name).map(String::as_str))
    }

    #[test]
    fn a_page_knows_the_way_to_the_next() {
        let query = read("sort=lag&state=failing&q=W%C3%A4ll+%26&limit=7&format=").unwrap();
        assert_eq!((query.sort, query.state, query.search.as_str()), (Sort::Lag, Some(State::Failing), "wäll &"));
        assert_eq!(read(&query.url(40)).unwrap(), Query { from: 40, ..query });
        assert_eq!(read("").unwrap().url(0), "?");
    }

    #[test]
    fn a_part_of_the_list_is_asked_for_by_system_customer_or_application() {
        let within = |text| read(text).unwrap().within.map(|within| (within.system, within.group));
        assert_eq!(within("system=thingsNetwork"), Some((Owner::THINGS_NETWORK, None)));
        assert_eq!(within("customer=A+%26+B"), Some((Owner::RAPIDM2M, Some("A & B".to_owned()))));
        assert_eq!(within("site=x&customer=c"), None, "there it says which site");
        for text in ["system=rapidM2M", "customer=A+%26+B&state=ok", "application=%C3%BC"] {
            let query = read(text).unwrap();
            assert_eq!(read(&query.url(0)).unwrap(), query, "{text}");
        }
    }

    #[test]
    fn one_site_or_device_is_asked_for_by_name() {
        let url = Wanted::url(Owner::RAPIDM2M, "A & B", "Well 7/ü");
        let wanted = read(&url).unwrap().wanted.unwrap();
        assert_eq!(
            (wanted.system, wanted.group.as_deref(), wanted.name.as_str()),
            ("rapidM2M", Some("A & B"), "Well 7/ü")
        );
        let wanted = read("device=pump-1").unwrap().wanted.unwrap();
        assert_eq!((wanted.system, wanted.group), (Owner::THINGS_NETWORK, None));
    }

    #[test]
    fn what_cannot_be_is_refused_by_name() {
        for (query, name) in [
            ("format=xml", "format"),
            ("sort=size", "sort"),
            ("state=odd", "state"),
            ("from=-1", "from"),
            ("limit=1001", "limit"),
            ("site=a&device=b", "both"),
            ("system=odd", "system"),
            ("customer=a&application=b", "one of"),
            (&format!("q={}", "x".repeat(201)), "q is longer"),
        ] {
            let error = read(query).unwrap_err();
            assert!(error.contains(name), "{query}: {error}");
        }
    }
}
