//! Reads a request from its raw target, because a name in the path may contain an encoded `/`.

use std::ops::Range;

use axum::{extract::Query, http::Uri};
use percent_encoding::percent_decode_str;
use serde::{Deserialize, Serialize};

use super::{
    sites::{CONTAINERS, Site},
    stamp,
};

/// The API's root.
pub const ROOT: &str = "/api/1/";

/// The resources that fault rules can name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Resource {
    Me,
    Customers,
    Sites,
    Site,
    Blueprint,
    Histdata,
    Youngest,
}

/// A resource and the decoded names in its path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    pub resource: Resource,
    pub customer: Option<String>,
    pub site: Option<String>,
    /// `histdata{container}`; 0 for the other resources.
    pub container: usize,
}

/// The decoded segments of a raw path below the API's root. `None` if it is outside the API or not UTF-8.
pub fn segments(raw_path: &str) -> Option<Vec<String>> {
    let decoded = |segment| percent_decode_str(segment).decode_utf8().map(String::from);
    raw_path.strip_prefix(ROOT)?.split('/').map(decoded).collect::<Result<_, _>>().ok()
}

impl Target {
    pub fn parse(segments: &[String]) -> Option<Self> {
        let parts: Vec<&str> = segments.iter().map(String::as_str).collect();
        let (resource, customer, site, container) = match parts[..] {
            ["me"] => (Resource::Me, None, None, 0),
            ["customers"] => (Resource::Customers, None, None, 0),
            ["customers", customer, "sites"] => (Resource::Sites, Some(customer), None, 0),
            ["customers", customer, "sites", site] => (Resource::Site, Some(customer), Some(site), 0),
            ["customers", customer, "sites", site, "blueprint"] => (Resource::Blueprint, Some(customer), Some(site), 0),
            ["customers", customer, "sites", site, data] => {
                (Resource::Histdata, Some(customer), Some(site), container(data)?)
            }
            ["customers", customer, "sites", site, data, "youngest"] => {
                (Resource::Youngest, Some(customer), Some(site), container(data)?)
            }
            _ => return None,
        };
        Some(Self { resource, customer: customer.map(str::to_owned), site: site.map(str::to_owned), container })
    }
}

fn container(segment: &str) -> Option<usize> {
    let digit = segment.strip_prefix("histdata")?;
    let index = digit.parse().ok()?;
    (digit.len() == 1 && index < CONTAINERS).then_some(index)
}

/// The value of the URL parameter `json`.
pub fn json_parameter(uri: &Uri) -> Option<String> {
    let Query(parameters) = Query::<Vec<(String, String)>>::try_from_uri(uri).ok()?;
    parameters.into_iter().find(|(name, _)| name == "json").map(|(_, value)| value)
}

/// Whether a window includes its bounds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Inclusive {
    pub from: bool,
    pub until: bool,
}

/// The requested rows and columns.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Selection {
    /// Channel positions, in the client's order.
    pub columns: Vec<usize>,
    /// Unix milliseconds.
    pub window: Range<i64>,
    /// Whether the window is open on one side. Only then does it select rows whose stamp cannot be compared.
    pub open: bool,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Parameters {
    select: Vec<String>,
    from: Option<String>,
    until: Option<String>,
}

impl Selection {
    /// `None` if the parameters are missing or invalid. Unknown keys are invalid here, so that a misspelt one is found.
    pub fn parse(json: Option<&str>, site: &Site, inclusive: Inclusive) -> Option<Self> {
        let parameters: Parameters = serde_json::from_str(json?).ok()?;
        let columns = parameters.select.iter().map(|name| site.channel(name)).collect::<Option<Vec<_>>>()?;
        let until = parameters.until.filter(|until| until != "*");
        let open = parameters.from.is_none() || until.is_none();
        let start = match parameters.from {
            None => i64::MIN,
            Some(from) => {
                let bound = stamp::parse(&from)?;
                bound.ms + i64::from(bound.exact && !inclusive.from)
            }
        };
        let end = match until {
            None => i64::MAX,
            Some(until) => {
                let bound = stamp::parse(&until)?;
                bound.ms + i64::from(bound.exact && inclusive.until)
            }
        };
        (!columns.is_empty()).then_some(Self { columns, window: start..end, open })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rapidm2m::{generate::Kind, sites::Channel};

    const BOTH: Inclusive = Inclusive { from: true, until: true };
    /// 2017-01-26T13:30:00Z
    const HALF_PAST_ONE: i64 = 1_485_437_400_000;

    fn parsed(json: &str, inclusive: Inclusive) -> Option<Selection> {
        let channels = ["ch0", "CH1"].map(|name| Channel { name: name.to_owned(), kind: Kind::Counter });
        Selection::parse(Some(json), &Site::new("s", channels.to_vec(), true), inclusive)
    }

    #[test]
    fn an_encoded_slash_stays_in_its_segment() {
        let target = |path: &str| Target::parse(&segments(path).unwrap());
        assert_eq!(
            target("/api/1/customers/a%2Fb%40c/sites/S%C3%BCd%20%221%22/histdata7/youngest"),
            Some(Target {
                resource: Resource::Youngest,
                customer: Some("a/b@c".to_owned()),
                site: Some("Süd \"1\"".to_owned()),
                container: 7
            })
        );
        assert_eq!(target("/api/1/customers/a/b/sites/s"), None);
        for data in ["histdata", "histdata10", "histdata+1", "histdatax", "config0"] {
            assert_eq!(target(&format!("/api/1/customers/c/sites/s/{data}")), None, "{data}");
        }
        assert_eq!(segments("/api/2/me"), None);
        assert_eq!(segments("/api/1/customers/%FF/sites"), None);
    }

    #[test]
    fn bounds_are_padded_and_inclusive_unless_switched() {
        let json = r#"{"select":["CH0","ch1"],"from":"20170126133","until":"20170126133"}"#;
        let selection = parsed(json, BOTH).unwrap();
        assert_eq!(selection.columns, [0, 1]);
        assert_eq!(selection.window, HALF_PAST_ONE..HALF_PAST_ONE + 1);
        assert!(!selection.open);
        let selection = parsed(json, Inclusive { from: false, until: false }).unwrap();
        assert_eq!((selection.window.start, selection.window.end), (HALF_PAST_ONE + 1, HALF_PAST_ONE));
    }

    #[test]
    fn a_star_or_nothing_leaves_the_window_open() {
        for json in [r#"{"select":["ch0"],"until":"*"}"#, r#"{"select":["ch0"]}"#] {
            let selection = parsed(json, BOTH).unwrap();
            assert_eq!((selection.window, selection.open), (i64::MIN..i64::MAX, true));
        }
    }

    #[test]
    fn what_the_api_does_not_have_is_refused() {
        for json in [
            "",
            "{}",
            "[]",
            r#"{"select":[]}"#,
            r#"{"select":"ch0"}"#,
            r#"{"select":["calc0"]}"#,
            r#"{"select":["ch0"],"untill":"*"}"#,
            r#"{"select":["ch0"],"from":"yesterday"}"#,
            r#"{"select":["ch0"],"from":"*"}"#,
            r#"{"select":["ch0"],"until":20170126}"#,
        ] {
            assert_eq!(parsed(json, BOTH), None, "{json}");
        }
    }
}
