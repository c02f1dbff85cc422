//! Reads a webhook's body: its format, whether it is an uplink, and whose it is.

use serde::Deserialize;
use serde_json::value::RawValue;

use super::{event::Event, ids::Invalid, uplink::Uplink, v2, v3};
use crate::support::http::{MAX_ERROR_TEXT, one_line};

/// The content of a webhook.
#[derive(Debug)]
pub enum Webhook<'a> {
    Uplink(Box<Uplink<'a>>),
    /// A join, the outcome of a downlink, a location, data of a service, or a kind that does not exist yet.
    Event(Event<'a>),
}

/// The members that distinguish the formats. An event of the console's live data has a name and an id of its own. `uplink_normalized` and others are events: they have the ids, but no
/// `uplink_message`.
#[derive(Deserialize)]
struct Probe<'a> {
    #[serde(borrow)]
    uplink_message: Option<&'a RawValue>,
    #[serde(borrow)]
    app_id: Option<&'a RawValue>,
    #[serde(borrow)]
    dev_id: Option<&'a RawValue>,
    #[serde(borrow)]
    payload_raw: Option<&'a RawValue>,
    #[serde(borrow)]
    name: Option<&'a RawValue>,
    #[serde(borrow)]
    unique_id: Option<&'a RawValue>,
}

impl<'a> Webhook<'a> {
    /// Reads a body. Unknown members are ignored. An uplink needs only its ids.
    ///
    /// # Errors
    /// What is wrong with the body, in words for the person who set up the webhook.
    pub fn parse(body: &'a str) -> Result<Self, Invalid> {
        // The queue drops JSON's white space around the body, so it must not change the hash.
        let body = body.trim_matches([' ', '\t', '\n', '\r']);
        if body.is_empty() {
            return Err(Invalid::Empty);
        }
        let not_json = |error: serde_json::Error| Invalid::NotJson(one_line(&error.to_string(), MAX_ERROR_TEXT));
        // serde would read an array as a struct.
        if !body.starts_with('{') {
            let error = serde_json::from_str::<serde::de::IgnoredAny>(body).err();
            return Err(error.map_or_else(|| Invalid::NotJson("it is another kind of JSON".into()), not_json));
        }
        // What nearly all are is read at once; what else it is, or what is wrong with it, is looked for afterwards.
        let of_stack = v3::parse(body);
        if let Ok(Some(uplink)) = of_stack {
            return Ok(Self::Uplink(Box::new(uplink)));
        }
        let probe: Probe<'a> = serde_json::from_str(body)
            .map_err(|error| if is_several(body) { Invalid::Several } else { not_json(error) })?;
        match of_stack {
            Err(invalid) if probe.uplink_message.is_some() => Err(invalid),
            _ if [probe.app_id, probe.dev_id, probe.payload_raw].iter().any(Option::is_some) => {
                v2::parse(body).map(|uplink| Self::Uplink(Box::new(uplink)))
            }
            _ if probe.name.is_some() && probe.unique_id.is_some() => Err(Invalid::OfConsole),
            _ => Event::parse(body).map(Self::Event),
        }
    }
}

/// Whether another document follows the first, as in what the Storage Integration answers.
fn is_several(body: &str) -> bool {
    let mut documents = serde_json::Deserializer::from_str(body).into_iter::<serde::de::IgnoredAny>();
    (0..2).all(|_| documents.next().is_some_and(|document| document.is_ok()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error(body: &str) -> String {
        Webhook::parse(body).unwrap_err().to_string()
    }

    #[test]
    fn what_is_no_webhook_says_why() {
        assert!(error("  ").contains("Content-Length"));
        for body in
            ["{\"a\":", "\u{c}{\"app_id\":\"a\",\"dev_id\":\"d\"}", "[1]", "\"text\"", "7", "null", "\u{8}\u{12}binary"]
        {
            assert!(error(body).contains("not a JSON object"), "{body}");
        }
        assert!(error("{\"result\":{}}\n{\"result\":{}}\n").contains("several JSON documents"));
        assert!(error(r#"{"hello":1}"#).contains("neither uplink_message"));
        assert!(error("{}").contains("neither uplink_message"));
    }

    #[test]
    fn missing_ids_are_named() {
        let both = error(r#"{"uplink_message":{"f_port":1}}"#);
        let (application, device) = ("end_device_ids.application_ids.application_id", "end_device_ids.device_id");
        assert!(both.starts_with(&format!("{application} and {device} missing")), "{both}");
        let one = error(r#"{"end_device_ids":{"device_id":"d"},"uplink_message":{}}"#);
        assert!(one.starts_with(&format!("{application} missing")), "{one}");
        let empty =
            r#"{"end_device_ids":{"device_id":"","application_ids":{"application_id":"a"}},"uplink_message":{}}"#;
        assert!(error(empty).starts_with(&format!("{device} missing")));
        assert!(error(r#"{"app_id":"a","payload_raw":"AA=="}"#).starts_with("dev_id missing"));
        assert!(error(r#"{"payload_raw":"AA=="}"#).starts_with("app_id and dev_id missing"));
    }

    #[test]
    fn ids_that_the_network_cannot_have_given_are_refused_and_not_repeated() {
        for id in ["Dev", "a b", "-a", "a-", "a--b", "a\\nazfuncjsonlog:x", "ü", &"x".repeat(37)] {
            let device = format!(r#"{{"app_id":"app","dev_id":"{id}"}}"#);
            assert!(error(&device).starts_with("dev_id is not an id"), "{id}: {}", error(&device));
            let application = format!(r#"{{"app_id":"{id}","dev_id":"dev"}}"#);
            assert!(error(&application).starts_with("app_id is not an id"), "{id}");
        }
        for id in ["a", "eui-70b3d57ed005a001", "a_b", &"x".repeat(36)] {
            assert!(Webhook::parse(&format!(r#"{{"app_id":"{id}","dev_id":"{id}"}}"#)).is_ok(), "{id}");
        }
    }

    #[test]
    fn a_member_of_another_type_is_refused_not_guessed() {
        let body = r#"{"end_device_ids":{"device_id":"d","application_ids":{"application_id":"a"}},"uplink_message":{"f_port":"x"}}"#;
        assert!(error(body).contains("a member is not what it should be: invalid type"), "{}", error(body));
        assert!(error(r#"{"app_id":7,"dev_id":"d"}"#).contains("invalid type"));
    }
}
