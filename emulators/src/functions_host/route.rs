//! Matches the routes of HTTP functions, such as `uplink`, `sites/{site}/rows/{from?}`, `files/{*path}`.

use std::collections::BTreeMap;

use percent_encoding::percent_decode_str;

#[derive(Clone, Debug, PartialEq, Eq)]
enum Part {
    Literal(String),
    Parameter { name: String, optional: bool },
    Rest { name: String },
}

/// The route of an HTTP function, below the prefix.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Route(Vec<Part>);

/// Decoded values of a route's parameters.
pub type Parameters = BTreeMap<String, String>;

impl Route {
    /// # Errors
    /// Says what is wrong or not supported here (constraints, several parameters in one segment).
    pub fn parse(text: &str) -> Result<Self, String> {
        let segments: Vec<&str> = text.split('/').collect();
        let mut parts = Vec::new();
        for (index, segment) in segments.iter().enumerate() {
            let last = index + 1 == segments.len();
            let Some(inner) = segment.strip_prefix('{').and_then(|rest| rest.strip_suffix('}')) else {
                if segment.is_empty() || segment.contains(['{', '}', '*', '?']) {
                    return Err(format!("{text:?} has a segment that this host does not support: {segment:?}"));
                }
                parts.push(Part::Literal((*segment).to_owned()));
                continue;
            };
            let rest = inner.strip_prefix('*');
            let optional = inner.strip_suffix('?');
            let name = rest.or(optional).unwrap_or(inner).to_owned();
            if name.is_empty() || !name.chars().all(|letter| letter.is_alphanumeric() || letter == '_') {
                return Err(format!("{text:?} has a parameter that this host does not support: {segment:?}"));
            }
            if (rest.is_some() || optional.is_some()) && !last {
                return Err(format!("{text:?}: {segment:?} is allowed as the last segment only"));
            }
            let optional = optional.is_some();
            parts.push(if rest.is_some() { Part::Rest { name } } else { Part::Parameter { name, optional } });
        }
        Ok(Self(parts))
    }

    /// The parameters, if the raw path (without the prefix and its `/`) matches.
    pub fn matches(&self, raw_path: &str) -> Option<Parameters> {
        let decoded = |text: &str| percent_decode_str(text).decode_utf8_lossy().into_owned();
        let mut parameters = Parameters::new();
        let mut rest = Some(raw_path.strip_suffix('/').unwrap_or(raw_path)).filter(|path| !path.is_empty());
        for part in &self.0 {
            if let Part::Rest { name } = part {
                parameters.extend(rest.take().map(|rest| (name.clone(), decoded(rest))));
                break;
            }
            let segment =
                rest.map(|path| path.split_once('/').map_or((path, None), |(first, more)| (first, Some(more))));
            match (part, segment) {
                (Part::Parameter { optional: true, .. }, None) => {}
                (Part::Parameter { name, .. }, Some((value, _))) if !value.is_empty() => {
                    parameters.insert(name.clone(), decoded(value));
                }
                (Part::Literal(literal), Some((value, _))) if decoded(value).eq_ignore_ascii_case(literal) => {}
                _ => return None,
            }
            rest = segment.and_then(|(_, more)| more);
        }
        rest.is_none().then_some(parameters)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn matched(route: &str, path: &str) -> Option<Vec<(String, String)>> {
        Route::parse(route).unwrap().matches(path).map(|parameters| parameters.into_iter().collect())
    }

    #[test]
    fn paths_are_matched_segment_by_segment() {
        let pair = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        assert_eq!(matched("uplink", "UPLINK/"), Some(vec![]));
        assert_eq!(matched("uplink", "uplink/x"), None);
        assert_eq!(matched("uplink", ""), None);
        assert_eq!(matched("a/{b}/{c?}", "a/x%2Fy"), Some(vec![pair("b", "x/y")]));
        assert_eq!(matched("a/{b}/{c?}", "a/x/y"), Some(vec![pair("b", "x"), pair("c", "y")]));
        assert_eq!(matched("a/{b}", "a"), None);
        assert_eq!(matched("{*rest}", "x/y"), Some(vec![pair("rest", "x/y")]));
        assert_eq!(matched("{*rest}", ""), Some(vec![]));
    }

    #[test]
    fn what_is_not_supported_is_refused() {
        for route in ["", "/a", "{id:int}", "a{b}", "{a?}/b", "{*a}/b", "{}", "a*"] {
            Route::parse(route).expect_err(route);
        }
    }
}
