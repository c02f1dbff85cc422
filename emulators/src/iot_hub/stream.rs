//! What MQTT with the hub and with the Device Provisioning Service have in common: writing, how long to wait for a client, and
//! why a connection ends.

use std::{fmt, io, time::Duration};

use mqtt_protocol_core::mqtt::result_code::ConnectReturnCode;
use tokio::{
    io::{AsyncWrite, AsyncWriteExt},
    time::timeout,
};

use super::{conversation::Stop, hub::Kick};

/// Time a client has to take an answer.
const WRITE: Duration = Duration::from_secs(30);

/// The longest keep-alive the hub grants, in seconds; it also stands for none. The hub waits half as long again.
const MAX_KEEP_ALIVE: u16 = 1177;

/// Why a connection ended.
pub enum End {
    Refused(ConnectReturnCode, String),
    Stopped(Stop),
    Kicked(Kick),
    /// The client closed without a DISCONNECT.
    Closed,
    Failed(io::Error),
    /// Nothing came for one and a half keep-alive times.
    Silent,
}

pub async fn write<S: AsyncWrite + Unpin>(stream: &mut S, bytes: &[u8]) -> io::Result<()> {
    if bytes.is_empty() {
        return Ok(());
    }
    let written = timeout(WRITE, async {
        stream.write_all(bytes).await?;
        stream.flush().await
    });
    written.await.unwrap_or_else(|_| Err(io::Error::new(io::ErrorKind::TimedOut, "the client reads no answers")))
}

/// How long the hub waits for the next packet.
pub fn patience(keep_alive: u16) -> Duration {
    let granted = if keep_alive == 0 { MAX_KEEP_ALIVE } else { keep_alive.min(MAX_KEEP_ALIVE) };
    Duration::from_millis(u64::from(granted) * 1500)
}

impl fmt::Display for End {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Refused(code, reason) => write!(f, "CONNECT refused with code {}: {reason}", *code as u8),
            Self::Stopped(Stop::Disconnect) => f.write_str("the device said DISCONNECT"),
            Self::Stopped(Stop::Violation(reason)) => f.write_str(reason),
            Self::Stopped(Stop::Fault(fault)) => write!(f, "{fault}, as asked for"),
            Self::Kicked(Kick::TakenOver) => f.write_str("the same device connected again"),
            Self::Kicked(Kick::TokenExpired) => f.write_str("the token expired"),
            Self::Kicked(Kick::NotWelcome) => f.write_str("the device was disabled or deleted"),
            Self::Closed => f.write_str("the device closed the connection"),
            Self::Failed(error) => error.fmt(f),
            Self::Silent => f.write_str("nothing came in time"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hub_waits_half_as_long_again_but_not_for_ever() {
        assert_eq!(patience(10), Duration::from_secs(15));
        for keep_alive in [0, 1177, 1178, u16::MAX] {
            assert_eq!(patience(keep_alive), Duration::from_millis(1_765_500));
        }
    }
}
