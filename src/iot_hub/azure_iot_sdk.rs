//! The transport through the crate `azure_iot_sdk` 0.8, for users who choose it (feature `azure-iot-sdk`).
//!
//! Its limits and their effects:
//! - It publishes at QoS 0: the hub acknowledges nothing, so a sent message may be lost and is recorded with
//!   `Confirmed: false`.
//! - It sets no creation time, connects only to port 8883 of the hub itself, and trusts what OpenSSL trusts.
//! - It writes a space in a property as `+`, and panics because a topic cannot contain `+`. Such a value is
//!   percent-encoded first, and arrives in this form.

use std::{collections::HashMap, sync::Arc, time::Duration};

use azure_iot_sdk::{IoTHubClient, MessageBuilder, TokenSource};
use chrono::{DateTime, Utc};
use percent_encoding::utf8_percent_encode;
use secrecy::{ExposeSecret as _, SecretString};
use tokio::{
    sync::Mutex,
    time::{Instant, timeout},
};

use super::{
    Device, Message, SendError,
    failures::DeviceKey,
    message::{CONTENT_ENCODING, CONTENT_TYPE},
    sas::RESERVED,
};

/// Time-out for connecting and for each message. The crate itself waits for ever.
const TIMEOUT: Duration = Duration::from_secs(15);
/// The crate makes the hub cut a connection after 15 s of silence, but pings only every 15 s. A connection that was
/// idle for longer than this is therefore not reused.
const LONGEST_REST: Duration = Duration::from_secs(10);

/// One client per device.
#[derive(Default)]
pub struct Clients(Mutex<HashMap<DeviceKey, Arc<Mutex<Option<Open>>>>>);

struct Open {
    client: IoTHubClient,
    used: Instant,
}

#[derive(Clone)]
struct Token(SecretString);

impl TokenSource for Token {
    fn get(&self, _expiry: &DateTime<Utc>) -> String {
        self.0.expose_secret().to_owned()
    }
}

impl Clients {
    /// Hands one message to the operating system. Nothing more is known about its delivery.
    ///
    /// # Errors
    /// There is no connection, or it broke.
    pub async fn send(&self, device: &Device, token: SecretString, message: &Message) -> Result<(), SendError> {
        let slot = Arc::clone(self.0.lock().await.entry(DeviceKey::of(device)).or_default());
        let mut slot = slot.lock().await;
        let mut open = match slot.take().filter(|open| open.used.elapsed() < LONGEST_REST) {
            Some(open) => open,
            None => Open { client: connect(device, token).await?, used: Instant::now() },
        };
        match timeout(TIMEOUT, send(&mut open.client, message)).await {
            Ok(Ok(())) => {
                open.used = Instant::now();
                *slot = Some(open);
                Ok(())
            }
            Ok(Err(_)) | Err(_) => Err(SendError::Cut),
        }
    }
}

async fn connect(device: &Device, token: SecretString) -> Result<IoTHubClient, SendError> {
    let host = &device.endpoint.host;
    let connecting = async {
        // The crate's error is not `Send`, so it becomes a text here.
        IoTHubClient::new(host, device.id.clone(), Token(token)).await.map_err(|error| error.to_string())
    };
    match timeout(TIMEOUT, connecting).await {
        Ok(Ok(client)) => Ok(client),
        Ok(Err(text)) if text.contains("return code") => Err(SendError::Refused { device: device.id.clone() }),
        Ok(Err(text)) if text.contains("certificate") => Err(SendError::Untrusted(format!("{host}: {text}"))),
        Ok(Err(text)) => Err(SendError::Unreachable(format!("{host}:8883: {text}"))),
        Err(_) => Err(SendError::Unreachable(format!("{host}:8883 did not answer within {} s", TIMEOUT.as_secs()))),
    }
}

async fn send(client: &mut IoTHubClient, message: &Message) -> Result<(), String> {
    let builder = MessageBuilder::default()
        .set_body(message.body.to_vec())
        .set_message_id(message.id.clone())
        .set_content_type(CONTENT_TYPE.to_owned())
        .set_content_encoding(CONTENT_ENCODING.to_owned());
    let builder = message.properties.iter().fold(builder, |builder, (name, value)| {
        builder.add_message_property((*name).to_owned(), without_spaces(value))
    });
    client.send_message(builder.build()).await.map_err(|error| error.to_string())
}

fn without_spaces(value: &str) -> String {
    if value.contains(' ') { utf8_percent_encode(value, RESERVED).to_string() } else { value.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_values_with_spaces_are_encoded() {
        assert_eq!(without_spaces("Zähler+7"), "Zähler+7");
        assert_eq!(without_spaces("Energy meter 1"), "Energy%20meter%201");
    }
}
