//! One thin file per function folder of the app: it reads an envelope, makes one call and writes an envelope.

pub mod rapidm2m_forwarding;
pub mod rapidm2m_sites;
pub mod status;
pub mod things_network_downlinks;
pub mod things_network_forwarding;
pub mod things_network_uplink;
