//! What the functions work with, made once from the configuration. There are no globals.

use crate::{
    clock::Clock,
    config::{Config, hub::Identity, rapidm2m::SourceConfig},
    delivery::{Delivery, Identities},
    devices::{self, Devices},
    forward::{Forwarder, source::Source},
    functions::rapidm2m_forwarding::RapidM2mForwarding,
    hub::{self, Sender},
    ledger::Ledger,
    rapidm2m::Client,
};

/// All functions. Nothing is connected before it is used.
pub struct App {
    pub rapidm2m_forwarding: RapidM2mForwarding,
}

impl App {
    #[must_use]
    pub fn new(config: Config) -> Self {
        let clock = Clock::system();
        let rapidm2m = config.rapidm2m;
        let source = match rapidm2m.source {
            SourceConfig::Backend { url, credentials } => {
                Source::Backend(Client::new(url, &credentials, rapidm2m.concurrency))
            }
            SourceConfig::Emulation => Source::Emulation(clock),
        };
        let (hub, ledger) = (config.hub, Ledger::new(config.ledger));
        let sender = Sender::new(hub::Options::new(hub.transport, hub.max_connections, hub.trusted_ca.clone()));
        let identities = match hub.identity {
            Identity::One(device) => Identities::One(device),
            Identity::Provisioned(dps) => {
                let store = devices::Store::new(ledger.account());
                Identities::Provisioned(Devices::new(dps, store, hub.trusted_ca))
            }
        };
        let forwarder = Forwarder {
            source,
            ledger,
            delivery: Delivery { identities, sender },
            clock,
            channels: rapidm2m.channels,
            histdata: rapidm2m.histdata,
            start_from: rapidm2m.start_from,
            record_empty_polls: rapidm2m.record_empty_polls,
        };
        Self {
            rapidm2m_forwarding: RapidM2mForwarding::new(
                forwarder,
                rapidm2m.customer,
                rapidm2m.sites,
                rapidm2m.concurrency,
                rapidm2m.timeout,
            ),
        }
    }
}
