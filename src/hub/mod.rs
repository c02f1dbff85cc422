//! Azure IoT Hub, as a device meets it: identities, tokens, messages, and a sender that says when each is acknowledged.

#[cfg(feature = "azure-iot-sdk")]
mod azure_iot_sdk;
pub mod device;
mod error;
mod failures;
mod https;
mod links;
pub mod message;
mod mqtt;
pub mod sas;
mod sender;
mod tls;

pub use device::{Credential, Device, Endpoint, Policy};
pub use error::SendError;
pub use message::Message;
pub use sender::{Options, Sender, Transport};
pub(crate) use tls::client_config;
