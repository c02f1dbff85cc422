//! Makes everything that the functions work with, once, from the configuration. There are no globals.

use std::sync::Arc;

use crate::{
    config::{
        Config,
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
        ledger::Ledger,
        polling::{Forwarder, run::Polling, source::Source, world::Services},
    },
    status::{Scope, Status},
    support::{clock::Clock, http, http_client::HttpClient, meter::Meters},
    things_network::{
        downlinks::stack::Stack,
        forwarding::{self, Activities, Back, Downlinks, Forwarding},
        receiving::Receiving,
    },
};

/// All functions. Those of a half that is not configured are absent. Connections are made only at first use.
pub struct App {
    pub polling: Option<Polling>,
    pub receiving: Option<Receiving>,
    pub forwarding: Option<Forwarding>,
    pub status: Status,
}

/// Parts that both halves use.
struct Shared {
    clock: Clock,
    store: Arc<devices::Store>,
    sender: Arc<Sender>,
    /// For the backend and the queues: trusts the platform's certificate authorities.
    http: HttpClient,
    /// For the hub, DPS and The Things Stack: also trusts those of `IoTHubTrustedCa`.
    http_of_hub: HttpClient,
}

impl App {
    #[must_use]
    pub fn new(config: Config) -> Self {
        let Config { rapidm2m, things_network, ledger, hub } = config;
        let http = HttpClient::default();
        let http_of_hub = if hub.trusted_ca.is_empty() { http.clone() } else { hub.trusted_ca.into() };
        let options = iot_hub::Options::new(hub.transport, hub.max_connections, http_of_hub.clone());
        let ledger = Arc::new(Ledger::new(ledger));
        let shared = Shared {
            clock: Clock::system(),
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
        // The status page counts messages in the queues. The host itself reports errors in their settings.
        let queues = things_network
            .as_ref()
            .and_then(|config| Some(UplinkQueues::new(config.storage.as_ref()?, &config.queue, &shared.http)));
        let status = Status::new(ledger.clone(), shared.store.clone(), queues, shared.clock, scope);
        let polling = rapidm2m.zip(hub.identity).map(|(rapidm2m, identity)| shared.polling(rapidm2m, identity, ledger));
        let receiving = things_network.as_ref().map(|config| Receiving::new(config.events, config.secret.as_ref()));
        let forwarding = things_network.map(|config| shared.forwarding(config));
        Self { polling, receiving, forwarding, status }
    }
}

impl Shared {
    fn polling(&self, rapidm2m: rapidm2m::Config, identity: Identity, ledger: Arc<Ledger>) -> Polling {
        let source = match rapidm2m.source {
            SourceConfig::Backend { url, credentials } => {
                if url.scheme() == "http" && !http::is_on_this_machine(&url) {
                    tracing::warn!(
                        "M2MBackendURL is http://: everybody on the way can read the password; use https://"
                    );
                }
                Source::Backend(Client::new(url, &credentials, self.http.clone()))
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
            record_empty_polls: rapidm2m.record_empty_polls,
        };
        Polling::new(forwarder, rapidm2m.customer, rapidm2m.sites, rapidm2m.concurrency, rapidm2m.timeout)
    }

    fn forwarding(&self, config: things_network::Config) -> Forwarding {
        let things_network::Config { enrollments, device_ids, timeout, activity, queue, storage, .. } = config;
        let back = storage.map(|account| Back {
            queue: Queue::new(&account, &queue, self.http.clone()),
            max_dequeue_count: config.max_dequeue_count,
        });
        let (store, http) = (self.store.clone(), self.http_of_hub.clone());
        let devices = PerApplication::new(enrollments, store, http.clone(), Arc::default());
        let downlinks = Downlinks::new(Devicebound::new(http.clone()), Stack::new(http));
        let activities = Activities::new(self.store.clone(), activity);
        let options = forwarding::Options { device_ids, timeout, back };
        Forwarding::new(options, devices, self.sender.clone(), downlinks, activities, self.clock)
    }
}
