//! Makes ready tokens, as an operator makes them with Microsoft's tools.
//! <https://learn.microsoft.com/azure/iot-hub/authenticate-authorize-sas>

use base64::{Engine as _, prelude::BASE64_STANDARD};
use hmac::{Hmac, KeyInit as _, Mac as _};
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use sha2::Sha256;

/// A token for `device` at `host` that expires in `expires_in` seconds.
pub fn token(host: &str, device: &str, key: &str, expires_in: i64) -> String {
    let encoded = |text: &str| utf8_percent_encode(text, NON_ALPHANUMERIC).to_string();
    let resource = encoded(&format!("{host}/devices/{device}"));
    let expires = chrono::Utc::now().timestamp() + expires_in;
    let mut mac = Hmac::<Sha256>::new_from_slice(&BASE64_STANDARD.decode(key).unwrap()).unwrap();
    mac.update(format!("{resource}\n{expires}").as_bytes());
    let signature = encoded(&BASE64_STANDARD.encode(mac.finalize().into_bytes()));
    format!("SharedAccessSignature sr={resource}&sig={signature}&se={expires}")
}
