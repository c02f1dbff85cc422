//! A TCP listener that can go away and come back on the same port, for outages of a service.
//!
//! An outage must look as it does in the field: open connections are cut, and the kernel refuses new ones. A second
//! socket is bound but never listens. It keeps the port from being given to another process meanwhile. Both sockets
//! carry `SO_REUSEADDR`; Linux allows that while at most one of them listens.

use std::{
    io, mem,
    net::SocketAddr,
    pin::Pin,
    sync::{Arc, Mutex, PoisonError},
    task::{Context, Poll},
};

use axum::{extract::connect_info::Connected, serve::IncomingStream};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::{TcpListener, TcpSocket, TcpStream},
    sync::watch,
};
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};

/// Connections that the kernel queues before they are accepted.
const BACKLOG: u32 = 1024;

/// Opens and closes a [`DoorListener`]. Cheap to clone.
#[derive(Clone)]
pub struct Door {
    address: SocketAddr,
    wanted: Arc<watch::Sender<State>>,
    listening: watch::Receiver<bool>,
}

#[derive(Clone)]
struct State {
    open: bool,
    /// Cancelled when the door closes: it ends every connection that was accepted before.
    visit: CancellationToken,
}

/// Accepts connections while the door is open, and waits while it is closed. Give it to `axum::serve`, or loop over
/// [`accept`](DoorListener::accept).
pub struct DoorListener {
    address: SocketAddr,
    wanted: watch::Receiver<State>,
    listening: watch::Sender<bool>,
    listener: Option<TcpListener>,
    _placeholder: TcpSocket,
}

/// A connection that fails with `ConnectionAborted` once the door has closed.
pub struct Visitor {
    stream: TcpStream,
    cut: Pin<Box<WaitForCancellationFutureOwned>>,
    written: Written,
}

/// Reports when the bytes written to a connection have reached the kernel. As `ConnectInfo`, it belongs to the
/// request's own connection.
#[derive(Clone, Default)]
pub struct Written(Arc<Mutex<Vec<Then>>>);

type Then = Box<dyn FnOnce() + Send>;

/// Opens a door on `host:port`; port 0 takes any free one.
///
/// # Errors
/// The address does not parse or cannot be bound.
pub fn open(host: &str, port: u16) -> io::Result<(Door, DoorListener)> {
    let ip: std::net::IpAddr = host
        .parse()
        .map_err(|_| io::Error::new(io::ErrorKind::InvalidInput, format!("{host:?} is not an IP address")))?;
    let placeholder = bound(SocketAddr::new(ip, port))?;
    let address = placeholder.local_addr()?;
    let listener = bound(address)?.listen(BACKLOG)?;
    let (wanted, wanted_here) = watch::channel(State { open: true, visit: CancellationToken::new() });
    let (listening_here, listening) = watch::channel(true);
    let door = Door { address, wanted: Arc::new(wanted), listening };
    let listener = DoorListener {
        address,
        wanted: wanted_here,
        listening: listening_here,
        listener: Some(listener),
        _placeholder: placeholder,
    };
    Ok((door, listener))
}

/// A socket that holds the address and does not listen. Whoever sets `SO_REUSEADDR`, too, can listen there.
pub(crate) fn bound(address: SocketAddr) -> io::Result<TcpSocket> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    Ok(socket)
}

impl Door {
    /// The address that clients connect to, with the real port if port 0 was requested.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Cuts every connection and refuses new ones. Returns once the port refuses.
    pub async fn close(&self) {
        self.wanted.send_modify(|state| {
            state.open = false;
            state.visit.cancel();
        });
        self.settled(false).await;
    }

    /// Accepts connections again. Returns once the port accepts.
    pub async fn reopen(&self) {
        self.wanted.send_if_modified(|state| {
            let closed = !state.open;
            if closed {
                *state = State { open: true, visit: CancellationToken::new() };
            }
            closed
        });
        self.settled(true).await;
    }

    /// Cuts every connection, but goes on accepting new ones.
    pub fn cut(&self) {
        self.wanted.send_modify(|state| {
            state.visit.cancel();
            state.visit = CancellationToken::new();
        });
    }

    async fn settled(&self, open: bool) {
        // An error means that the listener has been dropped: nothing accepts any more.
        let _ = self.listening.clone().wait_for(|listening| *listening == open).await;
    }
}

impl DoorListener {
    /// The next connection. It waits while the door is closed. It never fails: an error of a single connection concerns
    /// only that connection.
    pub async fn accept(&mut self) -> (Visitor, SocketAddr) {
        loop {
            let state = self.wanted.borrow_and_update().clone();
            if !state.open {
                self.listener = None;
                self.listening.send_replace(false);
                if self.wanted.changed().await.is_err() {
                    // Closed, and every `Door` is dropped: nothing can open it again.
                    std::future::pending::<()>().await;
                }
                continue;
            }
            let listener = match self.listener.take() {
                Some(listener) => listener,
                None => match bound(self.address).and_then(|socket| socket.listen(BACKLOG)) {
                    Ok(listener) => listener,
                    Err(error) => {
                        tracing::error!(address = %self.address, %error, "cannot listen again");
                        std::future::pending().await
                    }
                },
            };
            let listener = self.listener.insert(listener);
            self.listening.send_replace(true);
            tokio::select! {
                accepted = listener.accept() => {
                    match accepted {
                        Ok((stream, peer)) => {
                            let _ = stream.set_nodelay(true);
                            let cut = Box::pin(state.visit.cancelled_owned());
                            return (Visitor { stream, cut, written: Written::default() }, peer);
                        }
                        // Most likely out of file descriptors: wait until some are closed.
                        Err(_) => tokio::time::sleep(std::time::Duration::from_millis(50)).await,
                    }
                }
                // If every `Door` is dropped, nothing can close it any more: it stays open.
                Ok(()) = self.wanted.changed() => {}
            }
        }
    }
}

impl axum::serve::Listener for DoorListener {
    type Io = Visitor;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Visitor, SocketAddr) {
        DoorListener::accept(self).await
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        Ok(self.address)
    }
}

impl Connected<IncomingStream<'_, DoorListener>> for Written {
    fn connect_info(stream: IncomingStream<'_, DoorListener>) -> Self {
        stream.io().written()
    }
}

impl Written {
    /// Calls `then` after the connection's next flush, or never if there is no flush.
    pub fn when_flushed(&self, then: impl FnOnce() + Send + 'static) {
        self.waiting().push(Box::new(then));
    }

    fn flushed(&self) {
        let waiting = mem::take(&mut *self.waiting());
        waiting.into_iter().for_each(|then| then());
    }

    fn waiting(&self) -> std::sync::MutexGuard<'_, Vec<Then>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Visitor {
    pub fn written(&self) -> Written {
        self.written.clone()
    }

    fn check(&mut self, context: &mut Context<'_>) -> io::Result<()> {
        match self.cut.as_mut().poll(context) {
            Poll::Ready(()) => Err(io::Error::new(io::ErrorKind::ConnectionAborted, "the emulator went away")),
            Poll::Pending => Ok(()),
        }
    }
}

impl AsyncRead for Visitor {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.check(context)?;
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl AsyncWrite for Visitor {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.check(context)?;
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let flushed = Pin::new(&mut self.stream).poll_flush(context);
        if matches!(flushed, Poll::Ready(Ok(()))) {
            self.written.flushed();
        }
        flushed
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    #[tokio::test]
    async fn a_door_that_nobody_holds_stays_open() {
        let (door, mut listener) = open("127.0.0.1", 0).unwrap();
        let address = door.address();
        drop(door);
        let (accepted, connected) = tokio::join!(listener.accept(), TcpStream::connect(address));
        assert_eq!(accepted.1, connected.unwrap().local_addr().unwrap());
    }

    #[tokio::test]
    async fn a_closed_door_cuts_refuses_and_opens_again_on_the_same_port() {
        let (door, mut listener) = open("127.0.0.1", 0).unwrap();
        tokio::spawn(async move {
            loop {
                let (mut visitor, _) = listener.accept().await;
                tokio::spawn(async move {
                    let mut byte = [0];
                    while visitor.read_exact(&mut byte).await.is_ok() {
                        visitor.write_all(&byte).await.unwrap();
                    }
                });
            }
        });
        let mut byte = [7];
        let mut before = TcpStream::connect(door.address()).await.unwrap();
        before.write_all(&byte).await.unwrap();
        before.read_exact(&mut byte).await.unwrap();

        door.close().await;
        assert!(before.read_exact(&mut byte).await.is_err(), "the open connection must be cut");
        let refused = TcpStream::connect(door.address()).await.unwrap_err();
        assert_eq!(refused.kind(), io::ErrorKind::ConnectionRefused);

        door.reopen().await;
        let mut after = TcpStream::connect(door.address()).await.unwrap();
        after.write_all(&byte).await.unwrap();
        after.read_exact(&mut byte).await.unwrap();
        assert_eq!(byte, [7]);
    }
}
