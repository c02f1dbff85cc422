//! Finds the causes that several sites or devices have in common, so that the page says each once.

use chrono::{DateTime, Utc};
use serde::Serialize;

use super::overview::Item;
use crate::support::kind::Kind;

/// Most causes that are shown. Those that concern most come first.
const MAX_CAUSES: usize = 3;

/// Why several sites or devices fail.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct Cause {
    pub kind: Kind,
    /// A short sentence without its end.
    pub summary: String,
    /// What an operator reads to find out more: the text of one of the failures.
    pub text: String,
    /// The earliest time known.
    pub since: Option<DateTime<Utc>>,
    pub affected: usize,
}

impl Cause {
    #[must_use]
    pub fn explains(&self, kind: &Kind) -> bool {
        self.kind.is_alike(kind)
    }
}

/// The causes that at least two items share.
#[must_use]
pub fn common(items: &[Item]) -> Vec<Cause> {
    let mut causes: Vec<Cause> = Vec::new();
    for item in items {
        // Several errors of one item can be alike.
        let mut counted: Vec<&Kind> = Vec::new();
        for error in &item.errors {
            let kind = &error.fault.kind;
            if counted.iter().any(|other| other.is_alike(kind)) {
                continue;
            }
            counted.push(kind);
            if let Some(cause) = causes.iter_mut().find(|cause| cause.explains(kind)) {
                cause.affected += 1;
                cause.since = [cause.since, error.since].into_iter().flatten().min();
            } else if let Some(summary) = summary(kind) {
                let (kind, text) = (kind.clone(), error.fault.text.clone());
                causes.push(Cause { kind, summary, text, since: error.since, affected: 1 });
            }
        }
    }
    causes.retain(|cause| cause.affected > 1);
    causes.sort_by_key(|cause| (std::cmp::Reverse(cause.affected), cause.since));
    causes.truncate(MAX_CAUSES);
    causes
}

/// What is wrong, if the kind concerns more than one site or device.
#[must_use]
pub fn summary(kind: &Kind) -> Option<String> {
    if let Some(service) = kind.unanswered() {
        return Some(format!("{service} cannot be reached"));
    }
    let known = match kind {
        Kind::Unauthorized => "The backend refuses the credentials",
        Kind::Forbidden => "The backend forbids the request",
        Kind::RateLimited => "The backend asks for fewer requests",
        Kind::HttpStatus => "The backend answers with an error",
        Kind::Html | Kind::NotJson => "The backend does not answer with JSON",
        Kind::NoSites => "The backend lists no sites",
        Kind::LedgerUnauthorized => "Cosmos DB refuses the credentials",
        Kind::LedgerThrottled => "Cosmos DB asks for fewer requests",
        Kind::HubRejectsAll => "IoT Hub rejects all messages",
        Kind::HubRefused => "IoT Hub refuses the device",
        Kind::HubClockWrong | Kind::DpsClockWrong => "The clock of this machine is wrong",
        Kind::HubTokenExpired => "IoT Hub says that the token has expired",
        Kind::HubUntrusted => "The certificate of IoT Hub is not trusted",
        Kind::HubCut | Kind::HubAcceptedThenCut => "IoT Hub cuts the connections",
        Kind::HubQuota => "The daily quota of IoT Hub is used up",
        Kind::HubThrottled => "IoT Hub asks for fewer messages",
        Kind::DpsUnauthorized => "The Device Provisioning Service refuses the credentials",
        Kind::DpsUnknownScope => "The Device Provisioning Service does not know the ID scope",
        Kind::DpsThrottled => "The Device Provisioning Service asks for fewer requests",
        Kind::DpsUntrusted | Kind::DpsTls => "The certificate of the Device Provisioning Service is not trusted",
        other if other.is_common() => return Some(format!("The same failure: {other}")),
        _ => return None,
    };
    Some(known.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        iot_hub::devices::{Owner, activity},
        rapidm2m::Selection,
        status::{Scope, overview::Overview},
        support::fault::Fault,
    };

    fn at(minute: i64) -> DateTime<Utc> {
        DateTime::from_timestamp(1_767_225_600 + minute * 60, 0).unwrap()
    }

    fn device(name: &str, kind: Kind, since: i64) -> activity::Document {
        let mut document = activity::Document::new((&Owner::things_network("pumps", name, name)).into());
        document.activity.failure(Fault { kind, text: format!("{name} fails") }, at(since));
        document
    }

    #[test]
    fn a_cause_is_told_once_with_the_earliest_time_and_how_many_it_concerns() {
        let devices = vec![
            device("a", Kind::HubUnreachable, 5),
            device("b", Kind::HubTimeout, 3),
            device("c", Kind::HubUnreachable, 9),
            device("d", Kind::HubQuota, 1),
            device("e", Kind::NoDevice, 1),
            device("f", Kind::NoDevice, 1),
        ];
        let scope =
            Scope { rapidm2m: None::<(String, Selection)>, has_things_network: true, records_empty_polls: true };
        let overview = Overview::new(Vec::new(), devices, &scope, at(10));
        let [cause] = &overview.causes[..] else { panic!("{:?}", overview.causes) };
        assert_eq!((cause.summary.as_str(), cause.affected), ("IoT Hub cannot be reached", 3));
        assert_eq!(cause.since, Some(at(3)));
        assert!(cause.explains(&Kind::HubStalled) && !cause.explains(&Kind::HubQuota));
    }
}
