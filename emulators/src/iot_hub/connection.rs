//! One device's connection, from CONNECT to the last byte.

use std::{
    io,
    net::SocketAddr,
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use mqtt_protocol_core::mqtt::{packet::v3_1_1::Connect, result_code::ConnectReturnCode};
use tokio::{
    io::{AsyncRead, AsyncWrite, AsyncWriteExt},
    time::{Instant, sleep, timeout, timeout_at},
};

use super::{
    conversation::{Conversation, Stop},
    denied::Denied,
    dps,
    faults::Refusal,
    hub::{Hub, Kick},
    login::{Claim, Credentials, Login},
    packets::{self, Malformed, Packet, PacketReader},
    received::Transport,
    stream::{End, patience, write},
};
use crate::steps::Step;

/// Time a client has for its CONNECT.
const GREETING: Duration = Duration::from_secs(30);

/// Time a client has to close its side after the hub has closed its own.
const FAREWELL: Duration = Duration::from_secs(2);

/// Speaks MQTT on a stream, whatever it runs over, and closes it.
pub async fn serve<S: AsyncRead + AsyncWrite + Unpin>(
    hub: &Arc<Hub>,
    stream: S,
    peer: SocketAddr,
    transport: Transport,
) {
    let mut reader = PacketReader::new(stream);
    let end = match receive_connect(&mut reader).await {
        Ok(connect) if dps::mqtt::is_meant(&connect) => dps::mqtt::serve(hub, &mut reader, &connect, peer).await,
        Ok(connect) => serve_device(hub, &mut reader, &connect, peer, transport).await,
        Err(end) => Err(end),
    };
    if let Err(end) = end {
        if let End::Refused(code, _) = end {
            hub.refused();
            let _ = write(&mut reader.stream, &packets::connack(false, code)).await;
        }
        tracing::warn!(%peer, "not let in: {end}");
    }
    // What the client has sent meanwhile is read to the end: otherwise the kernel would answer it with a reset, which
    // can overtake the last answers.
    let mut stream = reader.stream;
    let _ = timeout(FAREWELL, async {
        stream.shutdown().await?;
        tokio::io::copy(&mut stream, &mut tokio::io::sink()).await
    })
    .await;
}

async fn receive_connect<S: AsyncRead + Unpin>(reader: &mut PacketReader<S>) -> Result<Connect, End> {
    timeout(GREETING, first_packet(reader)).await.map_err(|_| End::Silent)?
}

/// Serves a device of the hub, if it may come in.
async fn serve_device<S: AsyncRead + AsyncWrite + Unpin>(
    hub: &Arc<Hub>,
    reader: &mut PacketReader<S>,
    connect: &Connect,
    peer: SocketAddr,
    transport: Transport,
) -> Result<(), End> {
    if hub.faults().ignores_connect(connect.client_id()) {
        return Err(await_end(reader).await);
    }
    let login = decide(hub, connect)?;
    let device = login.device_id.clone();
    tracing::info!(%peer, device, "connected");
    let end = attend(hub, reader, connect, login, transport).await;
    match end {
        End::Stopped(Stop::Violation(_)) => tracing::warn!(%peer, device, "disconnected: {end}"),
        _ => tracing::info!(%peer, device, "disconnected: {end}"),
    }
    Ok(())
}

/// Says nothing until the client goes.
async fn await_end<S: AsyncRead + Unpin>(reader: &mut PacketReader<S>) -> End {
    loop {
        match reader.fill().await {
            Ok(0) => return End::Closed,
            Ok(_) => {}
            Err(error) => return End::Failed(error),
        }
    }
}

/// Decides on a CONNECT to the hub.
fn decide(hub: &Hub, connect: &Connect) -> Result<Login, End> {
    let fault = hub.faults().on_connect(connect.client_id());
    match fault {
        Some(Refusal::ServerUnavailable) => {
            return Err(End::Refused(ConnectReturnCode::ServerUnavailable, "a fault was asked for".into()));
        }
        Some(Refusal::NotAuthorized) => {
            return Err(End::Refused(ConnectReturnCode::NotAuthorized, "a fault was asked for".into()));
        }
        None => {}
    }
    let credentials =
        Credentials { client_id: connect.client_id(), user_name: connect.user_name(), password: connect.password() };
    let refused = |denied: Denied| End::Refused(ConnectReturnCode::NotAuthorized, denied.to_string());
    Claim::of_connect(&credentials).and_then(|claim| hub.authenticate(&claim)).map_err(refused)
}

async fn first_packet<S: AsyncRead + Unpin>(reader: &mut PacketReader<S>) -> Result<Connect, End> {
    loop {
        match reader.next() {
            Ok(Some(Packet::Connect(connect))) => return Ok(connect),
            Ok(Some(_)) => return Err(violation("the first packet is not CONNECT".into())),
            Ok(None) => {}
            Err(Malformed::ProtocolLevel) => {
                let code = ConnectReturnCode::UnacceptableProtocolVersion;
                return Err(End::Refused(code, "only MQTT 3.1.1 is spoken here".into()));
            }
            Err(Malformed::Other(reason)) => return Err(violation(reason)),
        }
        if reader.fill().await.map_err(End::Failed)? == 0 {
            return Err(End::Closed);
        }
    }
}

/// Serves an accepted connection until something ends it.
async fn attend<S: AsyncRead + AsyncWrite + Unpin>(
    hub: &Arc<Hub>,
    reader: &mut PacketReader<S>,
    connect: &Connect,
    login: Login,
    transport: Transport,
) -> End {
    let left = until(login.expiry);
    let (presence, kicked) = hub.enter(login, connect.clean_session());
    let connack = packets::connack(presence.session_present, ConnectReturnCode::Accepted);
    let cut = hub.faults().cuts_after_connect(&presence.device_id);
    hub.steps.reached(Step::Connect);
    if let Err(error) = write(&mut reader.stream, &connack).await {
        return End::Failed(error);
    }
    if cut {
        return End::Stopped(Stop::Fault("cut after CONNACK"));
    }
    tokio::select! {
        ended = converse(Conversation::new(hub, &presence, transport), reader, patience(connect.keep_alive())) => ended.unwrap_or_else(End::Failed),
        kick = kicked => End::Kicked(kick.unwrap_or(Kick::TakenOver)),
        () = sleep(left) => End::Kicked(Kick::TokenExpired),
    }
}

async fn converse<S: AsyncRead + AsyncWrite + Unpin>(
    mut talk: Conversation<'_>,
    reader: &mut PacketReader<S>,
    patience: Duration,
) -> io::Result<End> {
    let mut deadline = Instant::now() + patience;
    let mut heard = false;
    loop {
        let now = Instant::now();
        // Whatever has been read is dealt with before anything is written: one write answers a whole burst.
        let stop = match reader.next() {
            Ok(Some(packet)) => {
                heard = true;
                match talk.take(packet, now) {
                    Ok(()) => continue,
                    Err(stop) => Some(stop),
                }
            }
            Ok(None) => None,
            Err(Malformed::ProtocolLevel) => Some(Stop::Violation("a second CONNECT".into())),
            Err(Malformed::Other(reason)) => Some(Stop::Violation(reason)),
        };
        let stop = stop.or_else(|| talk.advance(now).err());
        write(&mut reader.stream, &talk.out).await?;
        talk.out.clear();
        for _ in 0..std::mem::take(&mut talk.acknowledged) {
            talk.hub.steps.reached(Step::MessageAnswered);
        }
        if let Some(stop) = stop {
            return Ok(End::Stopped(stop));
        }
        if std::mem::take(&mut heard) {
            deadline = now + patience;
        }
        let wake = talk.next_due().map_or(deadline, |due| due.min(deadline));
        let filled = tokio::select! {
            filled = timeout_at(wake, reader.fill()) => filled,
            () = talk.changed() => continue,
        };
        match filled {
            Ok(Ok(0)) => return Ok(End::Closed),
            Ok(read) => drop(read?),
            Err(_) if Instant::now() >= deadline => return Ok(End::Silent),
            Err(_) => {}
        }
    }
}

/// The time left until `expiry`, in seconds since 1970.
fn until(expiry: u64) -> Duration {
    let at = UNIX_EPOCH.checked_add(Duration::from_secs(expiry));
    at.map_or(Duration::MAX, |at| at.duration_since(SystemTime::now()).unwrap_or_default())
}

fn violation(reason: String) -> End {
    End::Stopped(Stop::Violation(reason))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_expiry_can_be_waited_for() {
        assert_eq!(until(0), Duration::ZERO);
        assert!(until(u64::MAX) > Duration::from_secs(1 << 40));
    }
}
