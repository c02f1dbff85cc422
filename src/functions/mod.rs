//! One file, or folder, for each function folder of the app.

mod line;
pub(crate) mod progress;
pub mod rapidm2m_forwarding;
pub mod status;
mod tally;
pub mod things_network_forwarding;
pub mod things_network_uplink;
