//! Serves a router behind a door, and can cut a connection instead of answering, which `axum::serve` cannot.

use std::io;

use axum::{Router, extract::Request};
use hyper::{
    body::Incoming,
    server::conn::http1,
    service::{Service as _, service_fn},
};
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    service::TowerToHyperService,
};
use tokio::task::JoinSet;

use crate::door::{DoorListener, Visitor};

/// Connections served at a time; more are closed as soon as they are accepted.
const MAX_CONNECTIONS: usize = 10_000;

/// In the extensions of a response: it is not sent, its connection is cut.
#[derive(Clone, Copy)]
pub struct Cut;

/// Serves for ever.
pub async fn serve(mut listener: DoorListener, router: Router) {
    let mut connections = JoinSet::new();
    loop {
        let (visitor, peer) = listener.accept().await;
        while connections.try_join_next().is_some() {}
        if connections.len() >= MAX_CONNECTIONS {
            tracing::warn!(%peer, "connection closed: {MAX_CONNECTIONS} are open");
            continue;
        }
        connections.spawn(connection(visitor, router.clone()));
    }
}

async fn connection(visitor: Visitor, router: Router) {
    let router = TowerToHyperService::new(router);
    let service = service_fn(move |request: Request<Incoming>| {
        let response = router.call(request);
        async move {
            match response.await {
                Ok(response) if response.extensions().get::<Cut>().is_none() => Ok(response),
                _ => Err(io::Error::other("cut as demanded")),
            }
        }
    });
    // The connection's end is its client's affair.
    let _ = http1::Builder::new().timer(TokioTimer::new()).serve_connection(TokioIo::new(visitor), service).await;
}
