//! Azure IoT Hub, as a device meets it: tokens, messages, and a sender that says when each message is acknowledged.

pub mod device;
pub mod message;
pub mod mqtt;
pub mod sas;
mod sender;
mod tls;

pub use device::{Credential, Device, Endpoint};
pub use message::Message;
pub use sender::{SendError, Sender};
pub(crate) use tls::client_config;
