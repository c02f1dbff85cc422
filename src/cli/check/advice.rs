//! Finds the advice for a fault. No I/O. It agrees with docs/troubleshooting.md.

use iothub_connector::support::kind::Kind;

/// The first words of advice, which follows a colon.
const VERBS: [&str; 23] = [
    "check", "set", "look", "replace", "write", "remove", "copy", "give", "use", "name", "delete", "fix", "send",
    "make", "install", "switch", "enable", "need", "create", "build", "rename", "run", "has",
];

/// Splits a text into the fault and the advice, if it contains advice: `it is wrong: check it; it says: no` becomes `it
/// is wrong; it says: no` and `check it`.
pub fn split(text: &str) -> (String, Option<String>) {
    if let Some(purpose) = text.strip_prefix("is not set: ") {
        return ("is not set".into(), Some(format!("set it: {purpose}")));
    }
    let begin = text.match_indices(": ").map(|(at, _)| at).find(|at| {
        let word = text[at + 2..].split([' ', ',']).next().unwrap_or_default();
        VERBS.contains(&word)
    });
    let Some(begin) = begin else { return (text.to_owned(), None) };
    let advice = &text[begin + 2..];
    let (advice, said) = match (advice.find("; it says: "), advice.find(": ")) {
        (Some(at), _) | (None, Some(at)) => advice.split_at(at),
        (None, None) => (advice, ""),
    };
    (format!("{}{said}", &text[..begin]), Some(advice.to_owned()))
}

/// Advice for a kind of fault whose text contains none.
pub fn of_kind(kind: &Kind) -> Option<&'static str> {
    Some(match kind {
        Kind::RateLimited => "lower PollConcurrency",
        Kind::HttpStatus | Kind::CutOff => "try again; ask whoever runs the backend if it stays so",
        Kind::Connect | Kind::Timeout => "check M2MBackendURL and the network",
        Kind::Html => "check M2MBackendURL; is there a login page or proxy in between?",
        Kind::EmptyAnswer | Kind::NotJson | Kind::WrongShape => "check M2MBackendURL",
        Kind::TooLarge => "name the Channelnames",
        Kind::HubRefused => "check key or token, and that the device is enabled",
        Kind::HubClockWrong | Kind::DpsClockWrong => "correct this machine's clock",
        Kind::HubUnreachable | Kind::HubCut | Kind::HubTimeout | Kind::HubStalled => {
            "check the hub's name, the network, and IoTHubTransport"
        }
        Kind::HubAcceptedThenCut | Kind::HubQuota => {
            "more units, or wait until 00:00 UTC; no other client may have the same device id"
        }
        Kind::HubThrottled => "more units, or fewer messages",
        Kind::DpsTimeout => "check DPSGlobalDeviceEndpoint and the network",
        Kind::DpsStatus | Kind::DpsThrottled => "try again later",
        Kind::LedgerUnreachable | Kind::LedgerTimeout => {
            "check M2MDocumentsDBUri, the account's firewall and the network"
        }
        Kind::QueueUnusable => "check AzureStorageConnectionString; if it is right, try again later",
        Kind::LedgerThrottled => "more throughput, lower PollConcurrency, or RecordEmptyPolls=false",
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use iothub_connector::{
        cosmos::Failure,
        iot_hub::{SendError, devices::DpsError},
        queue::QueueError,
        rapidm2m::FetchError,
        support::identity::SignIn,
    };

    use super::*;

    #[test]
    fn advice_is_taken_out_of_the_text() {
        for (text, fault, advice) in [
            ("is not set: what it is for", "is not set", Some("set it: what it is for")),
            ("is not Base64: copy it again", "is not Base64", Some("copy it again")),
            ("wrong (401): check A, and B; it says: go away", "wrong (401); it says: go away", Some("check A, and B")),
            ("no (403): check the key: Forbidden by X", "no (403): Forbidden by X", Some("check the key")),
            ("it cannot be reached: connection refused", "it cannot be reached: connection refused", None),
            ("is \"a: set\"", "is \"a: set\"", None),
        ] {
            assert_eq!(split(text), (fault.to_owned(), advice.map(str::to_owned)), "{text}");
        }
    }

    #[test]
    fn there_is_something_to_do_about_every_fault() {
        let said = String::new;
        let of_backend = [
            FetchError::Unauthorized { said: said() },
            FetchError::Forbidden { said: said() },
            FetchError::NotFound { said: said() },
            FetchError::RateLimited { status: 429, retry_after: None, said: said() },
            FetchError::Status { status: 500, said: said() },
            FetchError::Connect("x".into()),
            FetchError::Timeout,
            FetchError::Cut("x".into()),
            FetchError::NoSites,
            FetchError::NoChannels(1),
        ];
        let device = || "d".to_owned();
        let of_hub = [
            SendError::Refused { device: device() },
            SendError::RefusedBecause { device: device(), status: 401, text: said() },
            SendError::ClockWrong { device: device(), minutes: 7 },
            SendError::TokenExpired { device: device(), at: chrono::DateTime::UNIX_EPOCH },
            SendError::Untrusted("x".into()),
            SendError::Unreachable("x".into()),
            SendError::AcceptedThenCut { device: device() },
            SendError::QuotaUsedUp,
            SendError::Throttled { wait: None },
        ];
        let of_dps = [
            DpsError::Unauthorized { said: said() },
            DpsError::ClockWrong { minutes: 7 },
            DpsError::UnknownScope { said: said() },
            DpsError::Status { status: 500, said: said() },
            DpsError::Unreachable("x".into()),
            DpsError::Timeout,
            DpsError::Untrusted("x".into()),
            DpsError::Garbage("x".into()),
        ];
        let of_ledger = [
            Failure::Unauthorized { status: 401, text: "x".into() },
            Failure::Throttled("429".into()),
            Failure::Timeout,
            Failure::Unreachable("x".into()),
        ];
        let of_queues = [
            QueueError::Refused {
                account: "st1".into(),
                queue: "q".into(),
                status: 403,
                code: "AuthorizationPermissionMismatch".into(),
                remedy: "give it a role".into(),
            },
            QueueError::Unreachable { queue: "q".into(), text: "x".into() },
            QueueError::Token { text: "x".into(), advice: SignIn::App.advice() },
            QueueError::Status { queue: "q".into(), status: 503, code: "ServerBusy".into() },
        ];
        let all = of_backend.iter().map(|error| (error.kind(), error.to_string()));
        let all = all.chain(of_hub.iter().map(|error| (error.kind(), error.to_string())));
        let all = all.chain(of_dps.iter().map(|error| (error.kind(), error.to_string())));
        let all = all.chain(of_ledger.iter().map(|error| (error.kind(), error.to_string())));
        let all = all.chain(of_queues.iter().map(|error| (Kind::QueueUnusable, error.to_string())));
        for (kind, text) in all {
            assert!(split(&text).1.is_some() || of_kind(&kind).is_some(), "{kind}: {text}");
        }
    }
}
