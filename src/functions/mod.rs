//! One thin file for each function folder of the app: an envelope in, one call, an envelope out.

pub mod rapidm2m_forwarding;
pub mod status;
pub mod things_network_forwarding;
pub mod things_network_uplink;
