//! The faults that a test switches on, and the variants of the API.

use axum::http::{HeaderValue, StatusCode};
use serde::{Deserialize, Serialize};

use super::{
    request::{Inclusive, Resource},
    table::{Order, Shape},
};

/// The whole set, as `PUT /faults` takes it.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Faults {
    /// The first rule that matches a request and is not used up takes effect.
    pub rules: Vec<Rule>,
    pub order: Order,
    /// Every row twice.
    pub repeat_rows: bool,
    pub from_inclusive: bool,
    pub until_inclusive: bool,
    /// Content type of every normal answer.
    pub content_type: String,
    pub numbers_as_strings: bool,
}

impl Default for Faults {
    fn default() -> Self {
        Self {
            rules: Vec::new(),
            order: Order::Ascending,
            repeat_rows: false,
            from_inclusive: true,
            until_inclusive: true,
            content_type: "application/json".to_owned(),
            numbers_as_strings: false,
        }
    }
}

/// Which requests are hit, and the effect on them. Exactly one effect must be given.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Rule {
    /// Name or `_uid` as in the request's path. Absent: all requests.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub site: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub resource: Option<Resource>,
    /// How many more requests are hit. Absent: all.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub times: Option<u64>,

    #[serde(skip_serializing_if = "Option::is_none")]
    status: Option<u16>,
    /// With `status`: seconds or an HTTP date.
    #[serde(skip_serializing_if = "Option::is_none")]
    retry_after: Option<String>,
    /// With `status`.
    #[serde(skip_serializing_if = "Option::is_none")]
    body: Option<String>,
    /// With `status`.
    #[serde(skip_serializing_if = "Option::is_none")]
    content_type: Option<String>,

    #[serde(skip_serializing_if = "Option::is_none")]
    delay_ms: Option<u64>,
    #[serde(default, skip_serializing_if = "is_false")]
    hang: bool,
    #[serde(default, skip_serializing_if = "is_false")]
    cut_body: bool,
    #[serde(default, skip_serializing_if = "is_false")]
    garbage: bool,
    #[serde(default, skip_serializing_if = "is_false")]
    html: bool,
    #[serde(default, skip_serializing_if = "is_false")]
    empty_body: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    raw_body: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    big_body: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    trickle_ms: Option<u64>,
}

fn is_false(flag: &bool) -> bool {
    !flag
}

/// How a rule changes an answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Effect {
    Status {
        status: StatusCode,
        retry_after: Option<HeaderValue>,
        body: Option<String>,
        content_type: HeaderValue,
    },
    /// The normal answer, later.
    DelayMs(u64),
    /// No answer at all.
    Hang,
    /// The answer announces more bytes than it sends; then the connection ends.
    CutBody,
    /// Bytes that are neither JSON nor text.
    Garbage,
    /// A login page, with status 200.
    Html,
    EmptyBody,
    RawBody(String),
    /// Rows without end, at least this many bytes.
    BigBody(u64),
    /// The normal body in small pieces, with this many milliseconds between them.
    TrickleMs(u64),
}

impl Rule {
    /// # Errors
    /// There is no effect or more than one, or HTTP does not allow it.
    fn effect(&self) -> Result<Effect, String> {
        let with_status = self.retry_after.is_some() || self.body.is_some() || self.content_type.is_some();
        if with_status && self.status.is_none() {
            return Err("retryAfter, body and contentType need a status".to_owned());
        }
        let header = |name: &str, text: &str| {
            HeaderValue::from_str(text).map_err(|_| format!("{name} {text:?} is not a valid header value"))
        };
        let mut effects = Vec::new();
        if let Some(status) = self.status {
            let valid = StatusCode::from_u16(status).ok().filter(|status| (200..600).contains(&status.as_u16()));
            effects.push(Effect::Status {
                status: valid.ok_or_else(|| format!("status {status} is not in 200..=599"))?,
                retry_after: self.retry_after.as_deref().map(|text| header("retryAfter", text)).transpose()?,
                body: self.body.clone(),
                content_type: header("contentType", self.content_type.as_deref().unwrap_or("application/json"))?,
            });
        }
        effects.extend(self.delay_ms.map(Effect::DelayMs));
        effects.extend(self.hang.then_some(Effect::Hang));
        effects.extend(self.cut_body.then_some(Effect::CutBody));
        effects.extend(self.garbage.then_some(Effect::Garbage));
        effects.extend(self.html.then_some(Effect::Html));
        effects.extend(self.empty_body.then_some(Effect::EmptyBody));
        effects.extend(self.raw_body.clone().map(Effect::RawBody));
        effects.extend(self.big_body.map(Effect::BigBody));
        effects.extend(self.trickle_ms.map(Effect::TrickleMs));
        match (effects.pop(), effects.is_empty()) {
            (Some(effect), true) => Ok(effect),
            _ => Err("a rule has exactly one of status, delayMs, hang, cutBody, garbage, html, emptyBody, rawBody, \
                      bigBody, trickleMs"
                .to_owned()),
        }
    }

    fn matches(&self, resource: Option<Resource>, site: &[&str]) -> bool {
        self.times != Some(0)
            && self.resource.is_none_or(|wanted| Some(wanted) == resource)
            && self.site.as_deref().is_none_or(|wanted| site.contains(&wanted))
    }
}

impl Faults {
    /// # Errors
    /// Names the part that cannot be carried out.
    pub fn check(&self) -> Result<(), String> {
        for (index, rule) in self.rules.iter().enumerate() {
            rule.effect().map_err(|problem| format!("rules[{index}]: {problem}"))?;
        }
        HeaderValue::from_str(&self.content_type).map_err(|_| "contentType is not a valid header value".to_owned())?;
        Ok(())
    }

    /// Takes the effect for a request. `site` holds all names of the request's site.
    pub fn take(&mut self, resource: Option<Resource>, site: &[&str]) -> Option<Effect> {
        let rule = self.rules.iter_mut().find(|rule| rule.matches(resource, site))?;
        if let Some(times) = &mut rule.times {
            *times -= 1;
        }
        rule.effect().ok()
    }

    pub fn shape(&self) -> Shape {
        Shape { order: self.order, repeat: self.repeat_rows, numbers_as_strings: self.numbers_as_strings }
    }

    pub fn inclusive(&self) -> Inclusive {
        Inclusive { from: self.from_inclusive, until: self.until_inclusive }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn faults(json: &str) -> Result<Faults, String> {
        let faults: Faults = serde_json::from_str(json).map_err(|error| error.to_string())?;
        faults.check().map(|()| faults)
    }

    #[test]
    fn the_first_rule_that_matches_is_used_up() {
        let mut faults = faults(
            r#"{"rules":[{"site":"a","resource":"youngest","times":1,"delayMs":5},{"resource":"youngest","hang":true}]}"#,
        )
        .unwrap();
        assert_eq!(faults.take(Some(Resource::Histdata), &["a"]), None);
        assert_eq!(faults.take(Some(Resource::Youngest), &["uid", "a"]), Some(Effect::DelayMs(5)));
        assert_eq!(faults.take(Some(Resource::Youngest), &["a"]), Some(Effect::Hang));
        assert_eq!(faults.take(Some(Resource::Youngest), &["b"]), Some(Effect::Hang));
        assert_eq!(faults.rules[0].times, Some(0));
    }

    #[test]
    fn what_cannot_be_done_is_refused_with_the_reason() {
        for (json, reason) in [
            (r#"{"rules":[{}]}"#, "rules[0]: a rule has exactly one of"),
            (r#"{"rules":[{"hang":true},{"hang":true,"html":true}]}"#, "rules[1]: a rule has exactly one of"),
            (r#"{"rules":[{"hang":true,"retryAfter":"1"}]}"#, "need a status"),
            (r#"{"rules":[{"status":101}]}"#, "status 101"),
            (r#"{"rules":[{"status":429,"retryAfter":"a\nb"}]}"#, "not a valid header value"),
            (r#"{"rules":[{"hangs":true}]}"#, "unknown field `hangs`"),
            (r#"{"rules":[{"hang":true,"resource":"all"}]}"#, "unknown variant `all`"),
            (r#"{"order":"random"}"#, "unknown variant `random`"),
            (r#"{"contentType":"a\nb"}"#, "contentType"),
        ] {
            let error = faults(json).unwrap_err();
            assert!(error.contains(reason), "{json}: {error}");
        }
    }
}
