//! The way in: TCP connections, each with a TLS handshake of its own.

use std::{sync::Arc, time::Duration};

use tokio::{task::JoinSet, time::timeout};
use tokio_rustls::TlsAcceptor;

use super::{connection, hub::Hub};
use crate::door::DoorListener;

/// Connections served at a time; more are closed as soon as they are accepted.
const MAX_CONNECTIONS: usize = 20_000;

/// Time a client has for the TLS handshake.
const HANDSHAKE: Duration = Duration::from_secs(30);

/// Accepts connections for ever.
pub async fn accept(mut listener: DoorListener, acceptor: TlsAcceptor, hub: Arc<Hub>) {
    let mut connections = JoinSet::new();
    loop {
        let (visitor, peer) = listener.accept().await;
        while connections.try_join_next().is_some() {}
        if connections.len() >= MAX_CONNECTIONS {
            tracing::warn!(%peer, "connection closed: {MAX_CONNECTIONS} are open");
            continue;
        }
        let (acceptor, hub) = (acceptor.clone(), Arc::clone(&hub));
        connections.spawn(async move {
            match timeout(HANDSHAKE, acceptor.accept(visitor)).await {
                Ok(Ok(stream)) => connection::serve(&hub, stream, peer).await,
                Ok(Err(error)) => tracing::warn!(%peer, %error, "TLS handshake failed; does the client trust the CA?"),
                Err(_) => tracing::warn!(%peer, "no TLS handshake within {HANDSHAKE:?}"),
            }
        });
    }
}
