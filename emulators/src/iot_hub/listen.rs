//! Accepts TCP connections, does each one's TLS handshake, then serves MQTT or HTTP. The client's first byte decides:
//! MQTT begins with 0x10 (CONNECT), HTTP with the letter of a method.

use std::{io, net::SocketAddr, sync::Arc, time::Duration};

use axum::Router;
use tokio::{
    io::{AsyncBufReadExt, BufReader},
    task::JoinSet,
    time::timeout,
};
use tokio_rustls::TlsAcceptor;

use super::{connection, counts::Counts, http, hub::Hub, received::Transport};
use crate::door::{DoorListener, Visitor};

/// The most connections that each listener serves at the same time. Others are accepted and closed at once.
const MAX_CONNECTIONS: usize = 20_000;

/// How long a client may take for the TLS handshake.
const HANDSHAKE: Duration = Duration::from_secs(30);

/// How long a client may then take to send its first byte.
const FIRST_BYTE: Duration = Duration::from_secs(30);

/// Bytes read to see the first byte. Later bytes bypass this buffer.
const FIRST_READ: usize = 4096;

/// What every door serves.
#[derive(Clone)]
pub struct Entrance {
    pub acceptor: TlsAcceptor,
    pub hub: Arc<Hub>,
    /// The routes served over HTTP.
    pub router: Router,
}

impl Entrance {
    /// Accepts connections for ever. Calls `count` for each of them.
    pub async fn accept(self, mut listener: DoorListener, count: fn(&mut Counts)) {
        let mut connections = JoinSet::new();
        loop {
            let (visitor, peer) = listener.accept().await;
            while connections.try_join_next().is_some() {}
            if connections.len() >= MAX_CONNECTIONS {
                tracing::warn!(%peer, "connection closed: {MAX_CONNECTIONS} are open");
                continue;
            }
            self.hub.counts.send_modify(count);
            connections.spawn(self.clone().welcome(visitor, peer));
        }
    }

    async fn welcome(self, visitor: Visitor, peer: SocketAddr) {
        let written = visitor.written();
        let stream = match timeout(HANDSHAKE, self.acceptor.accept(visitor)).await {
            Ok(Ok(stream)) => stream,
            Ok(Err(error)) => {
                return tracing::warn!(%peer, %error, "TLS handshake failed; does the client trust the CA?");
            }
            Err(_) => return tracing::warn!(%peer, "no TLS handshake within {} s", HANDSHAKE.as_secs()),
        };
        let mut stream = BufReader::with_capacity(FIRST_READ, stream);
        match first_byte(&mut stream).await {
            Ok(Some(byte)) if byte.is_ascii_alphabetic() => http::serve(self.router, stream, peer, written).await,
            Ok(Some(_)) => connection::serve(&self.hub, stream, peer, Transport::Mqtt).await,
            Ok(None) => tracing::info!(%peer, "closed without a word"),
            Err(error) => tracing::info!(%peer, %error, "ended before its first byte"),
        }
    }
}

/// The first byte, which is not consumed. `None` if the stream has ended.
async fn first_byte(stream: &mut (impl AsyncBufReadExt + Unpin)) -> io::Result<Option<u8>> {
    let late = |_| io::Error::new(io::ErrorKind::TimedOut, format!("not a byte within {FIRST_BYTE:?}"));
    Ok(timeout(FIRST_BYTE, stream.fill_buf()).await.map_err(late)??.first().copied())
}

#[cfg(test)]
mod tests {
    use tokio::{
        io::{AsyncReadExt, AsyncWriteExt, duplex},
        time::Instant,
    };

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn the_first_byte_is_waited_for_but_not_for_ever_and_stays() {
        let (mut client, server) = duplex(100);
        let mut server = BufReader::new(server);
        let start = Instant::now();
        assert_eq!(first_byte(&mut server).await.unwrap_err().kind(), io::ErrorKind::TimedOut);
        assert_eq!(start.elapsed(), FIRST_BYTE);
        client.write_all(b"GET").await.unwrap();
        assert_eq!(first_byte(&mut server).await.unwrap(), Some(b'G'));
        drop(client);
        let mut all = vec![];
        server.read_to_end(&mut all).await.unwrap();
        assert_eq!(all, b"GET");
        assert_eq!(first_byte(&mut server).await.unwrap(), None);
    }
}
