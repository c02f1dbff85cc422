//! Makes everything that the functions work with, once, from the configuration. There are no globals.

use std::sync::Arc;

use secrecy::ExposeSecret as _;

use crate::{
    config::{
        Config, Faults, Setup,
        hub::Identity,
        rapidm2m::{self, SourceConfig},
        things_network,
    },
    iot_hub::{
        self, Devicebound, Sender,
        delivery::{Delivery, Identities},
        devices::{self, Devices, PerApplication},
    },
    queue::{Queue, UplinkQueues},
    rapidm2m::{
        Client,
        gate::Gate,
        ledger::Ledger,
        polling::{
            Forwarder,
            run::{self, PollQueue, Polling},
            source::Source,
            world::Services,
        },
    },
    status::{self, Scope, Status},
    support::{clock::Clock, ending::Ending, http, http_client::HttpClient, meter::Meters, reminder::Reminder},
    things_network::{
        downlinks::{self, stack::Stack},
        forwarding::{self, Activities, Forwarding, putting_back::Back},
        receiving::Receiving,
    },
};

/// For this part of a run's time an operation is tried while Cosmos DB throttles it.
const LEDGER_PATIENCE: f64 = 0.5;

/// All functions. Those of a half that is not configured, or whose settings are wrong, are absent. Connections are made
/// only at first use.
pub struct App {
    pub polling: Option<Polling>,
    pub receiving: Option<Arc<Receiving>>,
    pub forwarding: Option<Arc<Forwarding>>,
    /// `None` if the storage account is not known.
    pub back: Option<Arc<Back>>,
    pub status: Status,
    /// Why the absent ones among them do not work.
    pub faults: Faults,
    /// When the faults are logged again.
    pub reminder: Reminder,
    sender: Option<Arc<Sender>>,
}

/// Parts that both halves use.
struct Shared {
    clock: Clock,
    ending: Ending,
    store: Arc<devices::Store>,
    sender: Arc<Sender>,
    /// For the backend and the queues: trusts the platform's certificate authorities.
    http: HttpClient,
    /// For the hub, DPS and The Things Stack: also trusts those of `IoTHubTrustedCa`.
    http_of_hub: HttpClient,
}

impl App {
    #[must_use]
    pub fn new(setup: impl Into<Setup>, ending: Ending) -> Self {
        let Setup { config, webhooks, faults, surroundings } = setup.into();
        let (http, clock) = (HttpClient::default(), Clock::system());
        let receiving = webhooks.as_ref().map(|webhooks| Receiving::new(webhooks.events, webhooks.secret.as_ref()));
        let receiving = receiving.map(Arc::new);
        let back = webhooks.as_ref().and_then(|webhooks| {
            let queue = Queue::new(webhooks.storage.as_ref()?, &webhooks.queue, http.clone());
            Some(Arc::new(Back { queue, max_dequeue_count: webhooks.max_dequeue_count }))
        });
        let reminder = Reminder::default();
        let Some(Config { rapidm2m, things_network, ledger, hub }) = config else {
            let status = Status::without_services(clock, faults.sentences());
            return Self { polling: None, receiving, forwarding: None, back, status, faults, reminder, sender: None };
        };
        let http_of_hub = if hub.trusted_ca.is_empty() { http.clone() } else { hub.trusted_ca.into() };
        let options = iot_hub::Options {
            ending: ending.clone(),
            ..iot_hub::Options::new(hub.transport, hub.max_connections, http_of_hub.clone())
        };
        // A run uses its time, as long as the service takes something now and then.
        let patience = rapidm2m.as_ref().map(|rapidm2m| rapidm2m.timeout.mul_f64(LEDGER_PATIENCE));
        let ledger = Ledger::new(ledger);
        let ledger = Arc::new(match patience {
            Some(patience) => ledger.patient(patience),
            None => ledger,
        });
        let shared = Shared {
            clock,
            ending,
            store: Arc::new(devices::Store::new(ledger.account())),
            sender: Arc::new(Sender::new(options)),
            http,
            http_of_hub,
        };
        let scope = Scope {
            rapidm2m: rapidm2m.as_ref().map(|rapidm2m| (rapidm2m.customer.clone(), rapidm2m.sites.clone())),
            has_things_network: things_network.is_some(),
            records_empty_polls: rapidm2m.as_ref().is_some_and(|rapidm2m| rapidm2m.record_empty_polls),
        };
        let sends_to = sends_to(hub.identity.as_ref(), hub.transport);
        // The status page counts messages in the queues. The host itself reports errors in their settings.
        let queues = webhooks
            .as_ref()
            .and_then(|webhooks| Some(UplinkQueues::new(webhooks.storage.as_ref()?, &webhooks.queue, &shared.http)));
        let poll_queue = rapidm2m.as_ref().and_then(|rapidm2m| rapidm2m.queue.as_ref());
        let poll_queues = poll_queue.map(|queue| UplinkQueues::new(&queue.storage, &queue.name, &shared.http));
        let services = status::Services {
            ledger: ledger.clone(),
            store: shared.store.clone(),
            queues,
            poll_queues,
            scope,
            sends_to,
            is_local_session: surroundings.is_local_session,
            schedule: surroundings.schedule,
        };
        let status = Status::new(services, shared.clock, faults.sentences());
        let polling = rapidm2m.zip(hub.identity).map(|(rapidm2m, identity)| shared.polling(rapidm2m, identity, ledger));
        let forwarding = things_network.map(|config| Arc::new(shared.forwarding(config, back.clone())));
        let sender = Some(shared.sender);
        Self { polling, receiving, forwarding, back, status, faults, reminder, sender }
    }
}

impl App {
    /// Marks what was forwarded, and ends the connections to the hub in order. Only when no work is in flight.
    pub async fn end(&self) {
        if let Some(polling) = &self.polling {
            polling.mark_what_is_acknowledged().await;
        }
        if let Some(forwarding) = &self.forwarding {
            forwarding.end().await;
        }
        if let Some(sender) = &self.sender {
            sender.disconnect().await;
        }
    }
}

impl Shared {
    fn polling(&self, rapidm2m: rapidm2m::Config, identity: Identity, ledger: Arc<Ledger>) -> Polling {
        let limits = rapidm2m.limits();
        let source = match rapidm2m.source {
            SourceConfig::Backend { url, credentials } => {
                if url.scheme() == "http" && !http::is_on_this_machine(&url) {
                    tracing::warn!(
                        "M2MBackendURL is http://: everybody on the way can read the password; use https://"
                    );
                }
                let mark = identity.mark(&format!("rapidM2M {url} {}", credentials.expose_secret()));
                let client = Client::new(url, &credentials, self.http.clone(), Gate::new(limits, mark));
                Source::Backend(Box::new(client))
            }
            SourceConfig::Emulation => Source::Emulation(self.clock),
        };
        let meters = Arc::<Meters>::default();
        let identities = match identity {
            Identity::One(device) => Identities::One(device),
            Identity::Provisioned(dps) => {
                let (store, http) = (self.store.clone(), self.http_of_hub.clone());
                Identities::Provisioned(Devices::new(dps, store, http, meters.clone()))
            }
        };
        let delivery = Delivery { identities, sender: self.sender.clone(), meters: meters.clone() };
        let forwarder = Forwarder {
            world: Services { source, ledger, delivery, clock: self.clock, meters },
            channels: rapidm2m.channels,
            histdata: rapidm2m.histdata,
            start_from: rapidm2m.start_from,
            overlap: rapidm2m.overlap,
            corrections: rapidm2m.corrections,
            record_empty_polls: rapidm2m.record_empty_polls,
            mark_within: rapidm2m.mark_within,
        };
        let queue = rapidm2m.queue.map(|config| PollQueue {
            queue: Queue::new(&config.storage, &config.name, self.http.clone()),
            batch_sites: config.batch_sites,
        });
        let options = run::Options {
            queue,
            customer: rapidm2m.customer,
            sites: rapidm2m.sites,
            concurrency: rapidm2m.concurrency,
            timeout: rapidm2m.timeout,
            failed_sites_threshold: rapidm2m.failed_sites_threshold,
            sweep: rapidm2m.sweep,
        };
        Polling::new(forwarder, options, self.ending.clone())
    }

    fn forwarding(&self, config: things_network::Config, back: Option<Arc<Back>>) -> Forwarding {
        let things_network::Config {
            enrollments,
            device_ids,
            members,
            timeout,
            activity,
            direct,
            methods,
            address,
            confirms_downlinks,
            poll,
            ..
        } = config;
        if poll.is_some() && address.is_none() {
            tracing::warn!(
                "DownlinkPollSeconds is set, but not ThingsStackUrl and ThingsStackDownlinkApiKey: commands are fetched only for devices \
                 whose webhook this process has taken. Where the timer has a process of its own (Flex Consumption), that is none: \
                 set both"
            );
        }
        let (store, http) = (self.store.clone(), self.http_of_hub.clone());
        let devices = PerApplication::new(enrollments, store, http.clone(), Arc::default());
        let downlinks = downlinks::Parts {
            devicebound: Devicebound::new(http.clone()),
            stack: Stack::new(http),
            methods,
            sender: self.sender.clone(),
            ending: self.ending.clone(),
            address,
            is_polled: poll.is_some(),
            confirmations: confirms_downlinks.then(|| (self.store.clone(), self.clock)),
        };
        let activities = Activities::new(self.store.clone(), activity);
        let (ending, store) = (self.ending.clone(), self.store.clone());
        let options = forwarding::Options { device_ids, members, timeout, back, ending, direct, store, poll };
        Forwarding::new(options, devices, self.sender.clone(), downlinks, activities, self.clock)
    }
}

/// Where messages go, for people.
fn sends_to(identity: Option<&Identity>, transport: iot_hub::Transport) -> String {
    let way: &'static str = transport.into();
    let hub = match identity {
        Some(Identity::One(device)) => device.endpoint.host.clone(),
        Some(Identity::Provisioned(group)) => format!("the hubs of ID scope {}", group.id_scope),
        None => "the hub of each device".to_owned(),
    };
    format!("{hub} over {way}")
}
