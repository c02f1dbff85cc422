//! Reads which webhooks of The Things Network are accepted and which devices send their uplinks.

use std::time::Duration;

use secrecy::SecretString;

use super::{Problems, Settings, enrollment, host_json, methods, storage, things_stack};
use crate::{
    iot_hub::devices::enrollment::Enrollments,
    queue::Account,
    things_network::{
        downlinks::{
            address::{Address, Selection},
            method::Methods,
        },
        forwarding::polling::Poll,
        members::Members,
        template::Template,
    },
};

pub(super) const QUEUE: &str = "UplinkQueueName";
const TEMPLATE: &str = "DeviceIdTemplate";
const CONFIRM: &str = "ConfirmDownlinks";
const POLL: &str = "DownlinkPollSeconds";
const POLLED: &str = "DownlinkPollDevices";
/// The timer's interval is 10 s.
const LONGEST_POLL: u64 = 3600;
const MEMBERS: &str = "ThingsNetworkMembers";
const SECRET: &str = "ThingsNetworkWebhookSecret";
/// Shorter secrets can be guessed.
const SHORTEST_SECRET: usize = 16;
/// The Things Stack waits 5 s for the answer to a webhook.
const LONGEST_DIRECT: u64 = 4_000;
/// How long downlinks may take after the uplink.
const DOWNLINKS: Duration = Duration::from_secs(30);

#[derive(Debug)]
pub struct Config {
    /// `DPSIDScope…`, `DPSEnrollmentGroupSymmetricKey…`, `AzureIotHubConnectionString…`: where devices come from.
    pub enrollments: Enrollments,
    pub webhooks: Webhooks,
    /// `DeviceIdTemplate` (`{device_id}`): the device's id in DPS and in the hub.
    pub device_ids: Template,
    /// `ThingsNetworkMembers` (none): what a message has beside the members of the C# sample.
    pub members: Members,
    /// `ForwardTimeoutSeconds`: how long an uplink waits for its device and its acknowledgement before it returns to
    /// the queue (60 s).
    pub timeout: Duration,
    /// `DeviceActivitySeconds`: how often the devices' latest activity is written for the status page (60 s; 0 = never,
    /// here `None`).
    pub activity: Option<Duration>,
    /// `ThingsNetworkDirectMilliseconds`: how long a webhook's own call waits for the hub's acknowledgement before the
    /// uplink takes the queue (0 = at once, here `None`).
    pub direct: Option<Duration>,
    /// `AzureIoT__IoTCentral__Methods__…`: how the commands of IoT Central are sent.
    pub methods: Methods,
    /// `ThingsStackUrl`, `ThingsStackDownlinkApiKey`: where downlinks go if webhooks have no address for them.
    pub address: Option<Address>,
    /// `ConfirmDownlinks`: whether commands are done only when the device has confirmed their confirmed downlinks (false).
    pub confirms_downlinks: bool,
    /// `DownlinkPollSeconds`, `DownlinkPollDevices`: which devices' commands are fetched between uplinks, and how often (0 =
    /// never, here `None`).
    pub poll: Option<Poll>,
}

/// What accepting webhooks and putting messages back needs.
#[derive(Clone, Debug)]
pub struct Webhooks {
    /// `UplinkQueueName`: the storage queue between the two functions. The bindings and the status page use it.
    pub queue: String,
    /// `ThingsNetworkEvents`: whether joins and other events are forwarded too (false).
    pub events: bool,
    /// `ThingsNetworkWebhookSecret`: the value that webhooks must send in the header `X-Webhook-Secret`. Without this
    /// setting, the function key alone is enough.
    pub secret: Option<SecretString>,
    /// `AzureStorageConnectionString`, or one of the host's alternatives: the storage account of the queues. Through it,
    /// messages are put back and the status page counts them. Faults in it are not reported here, because the host
    /// reports them.
    pub storage: Option<Account>,
    /// `maxDequeueCount` of host.json.
    pub max_dequeue_count: u32,
}

/// Whether the settings turn this half of the connector on. An empty queue name counts as present: it is a fault.
pub(super) fn is_wanted(settings: &Settings) -> bool {
    settings.names_with(QUEUE).any(|name| name == QUEUE)
}

/// What a webhook must have to be accepted and forwarded as a whole. It can be read on its own.
#[derive(Debug)]
pub struct Accepted {
    /// See [`Webhooks::events`].
    pub events: bool,
    /// See [`Webhooks::secret`].
    pub secret: Option<SecretString>,
}

impl Accepted {
    /// Adds faults to `problems`.
    pub fn read(settings: &Settings, problems: &mut Problems) -> Self {
        let secret = settings.get(SECRET, problems);
        if secret.is_some_and(|secret| secret.len() < SHORTEST_SECRET) {
            problems.add(SECRET, format!("is too short: use at least {SHORTEST_SECRET} random characters"));
        }
        let secret = secret.map(SecretString::from);
        Self { events: settings.flag("ThingsNetworkEvents", false, problems), secret }
    }
}

/// Reads `ThingsNetworkMembers`. Adds faults to `problems`.
pub fn members(settings: &Settings, problems: &mut Problems) -> Option<Members> {
    let members = settings.get(MEMBERS, problems).map_or(Ok(Members::default()), Members::parse);
    members.map_err(|why| problems.add(MEMBERS, why)).ok()
}

impl Webhooks {
    pub(super) fn read(settings: &Settings, problems: &mut Problems) -> Option<Self> {
        let queue = settings.required(QUEUE, "the storage queue for uplinks", problems);
        if let Some(Err(why)) = queue.map(storage::check_queue) {
            problems.add(QUEUE, why);
        }
        let Accepted { events, secret } = Accepted::read(settings, problems);
        Some(Self {
            events,
            queue: queue?.to_owned(),
            secret,
            storage: storage::read(settings, &mut Problems::default()),
            max_dequeue_count: settings.host.max_dequeue_count,
        })
    }
}

impl Config {
    pub(super) fn read(settings: &Settings, problems: &mut Problems) -> Option<Self> {
        let webhooks = Webhooks::read(settings, problems);
        let template = settings.get(TEMPLATE, problems).map_or(Ok(Template::default()), Template::parse);
        let template = template.map_err(|why| problems.add(TEMPLATE, why)).ok();
        let members = members(settings, problems);
        let timeout = settings.number("ForwardTimeoutSeconds", 60, 1..=240, problems);
        let needed = Duration::from_secs(timeout) + DOWNLINKS;
        host_json::check("ForwardTimeoutSeconds", timeout, needed, settings.host.function_timeout, problems);
        let activity = settings.number("DeviceActivitySeconds", 60, 0..=3600, problems);
        let direct = settings.number("ThingsNetworkDirectMilliseconds", 0, 0..=LONGEST_DIRECT, problems);
        let methods = methods::read(settings, problems);
        let address = things_stack::downlinks(settings, problems);
        let confirms_downlinks = settings.flag(CONFIRM, false, problems);
        if confirms_downlinks && webhooks.as_ref().is_some_and(|webhooks| !webhooks.events) {
            problems.add(CONFIRM, "needs ThingsNetworkEvents=true: the device's confirmation is an event");
        }
        let every = settings.number(POLL, 0, 0..=LONGEST_POLL, problems);
        let devices = settings.get(POLLED, problems).map_or(Ok(Selection::default()), Selection::parse);
        let devices = devices.map_err(|why| problems.add(POLLED, why)).ok();
        let every = (every > 0).then(|| Duration::from_secs(every));
        let enrollments = enrollment::read(settings, problems);
        Some(Self {
            enrollments: enrollments?,
            webhooks: webhooks?,
            device_ids: template?,
            members: members?,
            timeout: Duration::from_secs(timeout),
            direct: (direct > 0).then(|| Duration::from_millis(direct)),
            methods,
            address,
            confirms_downlinks,
            poll: every.zip(devices).map(|(every, devices)| Poll { every, devices }),
            activity: (activity > 0).then(|| Duration::from_secs(activity)),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(pairs: &[(&str, &str)]) -> (Option<Config>, String) {
        let mut problems = Problems::default();
        let config = Config::read(&pairs.iter().copied().collect(), &mut problems);
        (config, problems.list())
    }

    const SCOPE: (&str, &str) = ("DPSIDScopeDefault", "0ne00111111");
    const KEY: (&str, &str) = ("DPSEnrollmentGroupSymmetricKeyDefault", "c2VjcmV0");

    #[test]
    fn a_queue_and_an_enrollment_group_are_enough() {
        let (config, problems) = read(&[(QUEUE, "uplinks"), SCOPE, KEY]);
        let config = config.unwrap();
        assert_eq!(problems, "");
        let Webhooks { queue, events, secret, .. } = config.webhooks;
        assert_eq!((queue.as_str(), config.device_ids, events), ("uplinks", Template::default(), false));
        assert_eq!((secret.is_none(), config.timeout), (true, Duration::from_secs(60)));
    }

    #[test]
    fn an_uplink_and_its_downlinks_must_end_before_the_host_ends_the_handler() {
        for (seconds, is_refused) in [("30", true), ("29", false)] {
            let mut settings: Settings = [(QUEUE, "uplinks"), ("ForwardTimeoutSeconds", seconds)].into_iter().collect();
            settings.host.function_timeout = Some(Duration::from_secs(60));
            let mut problems = Problems::default();
            Config::read(&settings, &mut problems);
            let said = problems.list();
            assert_eq!(said.contains("ForwardTimeoutSeconds is 30: a call can then take 60 s"), is_refused, "{said}");
        }
    }

    #[test]
    fn every_setting_at_fault_is_named_without_secrets() {
        let long = "q".repeat(55);
        for name in ["ab", "Uplinks", "up_links", "-uplinks", "uplinks-", "up--links", &long] {
            assert!(read(&[(QUEUE, name)]).1.contains("not a name of a storage queue"), "{name}");
        }
        let (_, problems) = read(&[
            (QUEUE, "uplinks"),
            (TEMPLATE, "{name}"),
            (MEMBERS, "radio, batery"),
            (SECRET, "hunter2"),
            ("ThingsNetworkEvents", "some"),
            ("ForwardTimeoutSeconds", "241"),
        ]);
        for name in [
            TEMPLATE,
            "ThingsNetworkMembers has \"batery\"",
            "did you mean \"battery\"",
            SECRET,
            "ThingsNetworkEvents",
            "ForwardTimeoutSeconds",
        ] {
            assert!(problems.contains(name), "{name} is missing in {problems}");
        }
        assert!(!problems.contains("hunter2"), "{problems}");
    }
}
