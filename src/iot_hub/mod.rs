//! Azure IoT Hub, as a device meets it: identities, tokens, messages, a sender that says when each is acknowledged, and what
//! the cloud has to say to the device.

#[cfg(feature = "azure-iot-sdk")]
mod azure_iot_sdk;
mod deaf;
pub mod delivery;
pub mod device;
mod devicebound;
pub mod devices;
mod error;
mod error_code;
mod failures;
mod https;
mod links;
pub mod message;
mod mqtt;
pub mod probe;
pub mod pushed;
mod rest;
pub mod sas;
mod sender;

pub(crate) use crate::support::tls::client_config;
pub use device::{Credential, Device, Endpoint, Policy};
pub use devicebound::{CloudMessage, Devicebound, DeviceboundError, MAX_CLOUD_MESSAGE, Settlement};
pub use error::SendError;
pub use message::Message;
pub use sender::{Options, Sender, Transport};
