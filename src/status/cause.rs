//! Finds the causes that several sites or devices have in common, so that the page says each once.

use chrono::{DateTime, Utc};
use serde::Serialize;

use super::overview::{Failure, Item};
use crate::{
    iot_hub::devices::Owner,
    support::{
        fault::Fault,
        kind::{Kind, Service},
    },
};

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
    /// When more than half of them failed.
    pub since: Option<DateTime<Utc>>,
    pub affected: usize,
}

impl Cause {
    #[must_use]
    pub fn explains(&self, kind: &Kind) -> bool {
        self.kind.is_alike(kind)
    }
}

/// Failures of several items that are alike.
struct Alike<'a> {
    /// One that says most.
    fault: &'a Fault,
    since: Vec<DateTime<Utc>>,
    affected: usize,
}

impl<'a> Alike<'a> {
    fn new(Failure { fault, since }: &'a Failure) -> Self {
        Self { fault, since: since.iter().copied().collect(), affected: 1 }
    }

    fn add(&mut self, Failure { fault, since }: &'a Failure) {
        self.affected += 1;
        self.since.extend(since);
        if fault.kind.is_unreachable() && !self.fault.kind.is_unreachable() {
            self.fault = fault;
        }
    }

    fn cause(mut self, items: &[Item]) -> Option<Cause> {
        let Fault { kind, text } = self.fault;
        let is_of_sites = kind.unanswered() == Some(Service::Backend);
        let concerned = items.iter().filter(|item| !is_of_sites || item.system == Owner::RAPIDM2M).count();
        let summary = summary(kind, self.affected * 2 >= concerned)?;
        // Not the earliest: a single site may have failed for days before the others.
        self.since.sort_unstable();
        let since = self.since.get(self.since.len() / 2).copied();
        Some(Cause { kind: kind.clone(), summary, text: text.clone(), since, affected: self.affected })
    }
}

/// The causes that at least two items share.
#[must_use]
pub fn common(items: &[Item]) -> Vec<Cause> {
    let mut all: Vec<Alike> = Vec::new();
    for item in items {
        // Several errors of one item can be alike.
        let mut counted: Vec<&Kind> = Vec::new();
        for error in &item.errors {
            let kind = &error.fault.kind;
            if counted.iter().any(|other| other.is_alike(kind)) {
                continue;
            }
            counted.push(kind);
            match all.iter_mut().find(|alike| alike.fault.kind.is_alike(kind)) {
                Some(alike) => alike.add(error),
                None => all.push(Alike::new(error)),
            }
        }
    }
    let shared = all.into_iter().filter(|alike| alike.affected > 1);
    let mut causes: Vec<_> = shared.filter_map(|alike| alike.cause(items)).collect();
    causes.sort_by_key(|cause| (std::cmp::Reverse(cause.affected), cause.since));
    causes.truncate(MAX_CAUSES);
    causes
}

/// What is wrong, if the kind concerns more than one site or device. A service that only some wait for in vain can be reached:
/// it is slow for them.
#[must_use]
pub fn summary(kind: &Kind, is_widespread: bool) -> Option<String> {
    if let Some(service) = kind.unanswered() {
        return Some(match kind {
            _ if is_widespread || kind.is_unreachable() => format!("{service} cannot be reached"),
            Kind::CutOff => format!("{service} breaks off its answers"),
            _ => format!("{service} does not answer in time"),
        });
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

    fn causes(devices: Vec<activity::Document>) -> Vec<Cause> {
        let rapidm2m = None::<(String, Selection)>;
        let scope = Scope { rapidm2m, has_things_network: true, records_empty_polls: true };
        Overview::new(Vec::new(), devices, &scope, at(10_000)).causes
    }

    /// Devices that fail for these reasons, among some that are well.
    fn summaries(kinds: &[Kind], well: usize) -> Vec<String> {
        let failing = kinds.iter().enumerate().map(|(place, kind)| device(&format!("f{place}"), kind.clone(), 5));
        let well = (0..well).map(|number| {
            let name = format!("w{number}");
            activity::Document::new((&Owner::things_network("pumps", &name, &name)).into())
        });
        causes(failing.chain(well).collect()).into_iter().map(|cause| cause.summary).collect()
    }

    #[test]
    fn an_outlier_does_not_move_the_time_of_a_cause() {
        let since = [-4_000, 61, 60, 62, 63];
        let devices = since.iter().enumerate().map(|(place, at)| device(&place.to_string(), Kind::HubUnreachable, *at));
        assert_eq!(causes(devices.collect())[0].since, Some(at(61)));
        // Two are a cause since the second fails.
        let devices = vec![device("a", Kind::HubUnreachable, -4_000), device("b", Kind::HubUnreachable, 60)];
        assert_eq!(causes(devices)[0].since, Some(at(60)));
    }

    #[test]
    fn a_service_is_away_only_if_it_refuses_connections_or_many_wait_for_it() {
        let slow = [Kind::HubTimeout, Kind::HubStalled];
        assert_eq!(summaries(&slow, 18), ["IoT Hub does not answer in time"]);
        assert_eq!(summaries(&slow, 2), ["IoT Hub cannot be reached"]);
        assert_eq!(summaries(&[Kind::HubTimeout, Kind::HubUnreachable], 18), ["IoT Hub cannot be reached"]);
        assert_eq!(summary(&Kind::CutOff, false).as_deref(), Some("The backend breaks off its answers"));
    }

    #[test]
    fn a_cause_is_told_once_with_its_time_and_how_many_it_concerns() {
        let devices = vec![
            device("a", Kind::HubUnreachable, 5),
            device("b", Kind::HubTimeout, 3),
            device("c", Kind::HubUnreachable, 9),
            device("d", Kind::HubQuota, 1),
            device("e", Kind::NoDevice, 1),
            device("f", Kind::NoDevice, 1),
        ];
        let [cause] = &causes(devices)[..] else { panic!("one cause") };
        assert_eq!((cause.summary.as_str(), cause.affected), ("IoT Hub cannot be reached", 3));
        assert_eq!(cause.since, Some(at(5)));
        assert!(cause.explains(&Kind::HubStalled) && !cause.explains(&Kind::HubQuota));
    }
}
