//! Converts a message to the text that a queue stores, and back.

use base64::{Engine as _, prelude::BASE64_STANDARD};
use bytes::Bytes;

/// host.json's `messageEncoding`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Encoding {
    #[default]
    Base64,
    None,
}

impl Encoding {
    /// Length of the stored text in bytes.
    pub fn length(self, content: &[u8]) -> usize {
        match self {
            Self::Base64 => content.len().div_ceil(3) * 4,
            Self::None => content.len(),
        }
    }

    pub fn encode(self, content: &[u8]) -> String {
        match self {
            Self::Base64 => BASE64_STANDARD.encode(content),
            Self::None => String::from_utf8_lossy(content).into_owned(),
        }
    }

    /// `None`: the text is not in this encoding.
    pub fn decode(self, text: &str) -> Option<Bytes> {
        match self {
            Self::Base64 => BASE64_STANDARD.decode(text).ok().map(Bytes::from),
            Self::None => Some(Bytes::copy_from_slice(text.as_bytes())),
        }
    }
}
