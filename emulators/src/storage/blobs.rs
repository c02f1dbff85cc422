//! The blobs of the account, and their leases: what hosts agree by.
//! <https://learn.microsoft.com/rest/api/storageservices/lease-blob>

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use axum::http::StatusCode;
use bytes::Bytes;
use chrono::{DateTime, Utc};

use super::{clock::Clock, service::Refusal};
use crate::queues::guid;

type Container = BTreeMap<String, Blob>;

/// The containers by name.
pub struct Blobs {
    containers: Mutex<BTreeMap<String, Container>>,
    clock: Arc<Clock>,
}

#[derive(Default)]
struct Blob {
    content: Bytes,
    /// Also one that is over: its holder may renew it as long as nobody else has touched the blob.
    lease: Option<Lease>,
}

struct Lease {
    id: String,
    time: Duration,
    ends: DateTime<Utc>,
}

const LOST: Refusal = (StatusCode::CONFLICT, "LeaseIdMismatchWithLeaseOperation");

impl Blobs {
    pub(super) fn new(clock: Arc<Clock>) -> Self {
        Self { containers: Mutex::default(), clock }
    }

    /// Creates a container. `false` if it exists.
    pub(super) fn create_container(&self, name: &str) -> bool {
        let mut containers = self.containers();
        let is_new = !containers.contains_key(name);
        containers.entry(name.to_owned()).or_default();
        is_new
    }

    /// Writes a blob. One that is leased can only be written by the holder.
    pub(super) fn write(
        &self,
        container: &str,
        name: &str,
        content: Bytes,
        lease: Option<&str>,
    ) -> Result<(), Refusal> {
        let now = self.clock.now();
        let mut containers = self.containers();
        let container = containers.get_mut(container).ok_or((StatusCode::NOT_FOUND, "ContainerNotFound"))?;
        let held = container.get_mut(name).and_then(|blob| {
            blob.lease.take_if(|lease| lease.ends <= now);
            Some(blob.lease.as_ref()?.id.clone())
        });
        let code = match (held.as_deref(), lease) {
            (Some(_), None) => "LeaseIdMissing",
            (Some(held), Some(id)) if held != id => "LeaseIdMismatchWithBlobOperation",
            (None, Some(_)) => "LeaseNotPresentWithBlobOperation",
            _ => {
                container.entry(name.to_owned()).or_default().content = content;
                return Ok(());
            }
        };
        Err((StatusCode::PRECONDITION_FAILED, code))
    }

    pub(super) fn read(&self, container: &str, name: &str) -> Result<Bytes, Refusal> {
        self.with(container, name, |blob, _| Ok(blob.content.clone()))
    }

    /// Returns the id of the new lease.
    pub(super) fn acquire(&self, container: &str, name: &str, time: Duration) -> Result<String, Refusal> {
        self.with(container, name, |blob, now| {
            if blob.lease.as_ref().is_some_and(|lease| lease.ends > now) {
                return Err((StatusCode::CONFLICT, "LeaseAlreadyPresent"));
            }
            let id = guid();
            blob.lease = Some(Lease { id: id.clone(), time, ends: now + time });
            Ok(id)
        })
    }

    pub(super) fn renew(&self, container: &str, name: &str, id: &str) -> Result<(), Refusal> {
        self.with(container, name, |blob, now| {
            let lease = blob.lease.as_mut().filter(|lease| lease.id == id).ok_or(LOST)?;
            lease.ends = now + lease.time;
            Ok(())
        })
    }

    pub(super) fn release(&self, container: &str, name: &str, id: &str) -> Result<(), Refusal> {
        self.with(container, name, |blob, _| blob.lease.take_if(|lease| lease.id == id).map(drop).ok_or(LOST))
    }

    /// The blob's text. `None` if there is no such blob.
    #[must_use]
    pub fn text(&self, container: &str, name: &str) -> Option<String> {
        self.read(container, name).ok().map(|content| String::from_utf8_lossy(&content).into_owned())
    }

    /// Writes a text, whoever has a lease of the blob.
    pub fn put(&self, container: &str, name: &str, text: &str) {
        let mut containers = self.containers();
        let blob = containers.entry(container.to_owned()).or_default().entry(name.to_owned()).or_default();
        blob.content = text.to_owned().into();
    }

    /// When the blob's lease ends, by the service's clock. `None` if it has none.
    #[must_use]
    pub fn leased_until(&self, container: &str, name: &str) -> Option<DateTime<Utc>> {
        self.with(container, name, |blob, now| Ok(blob.lease.as_ref().map(|lease| lease.ends).filter(|end| *end > now)))
            .ok()
            .flatten()
    }

    fn with<R>(
        &self,
        container: &str,
        name: &str,
        work: impl FnOnce(&mut Blob, DateTime<Utc>) -> Result<R, Refusal>,
    ) -> Result<R, Refusal> {
        let now = self.clock.now();
        let mut containers = self.containers();
        let container = containers.get_mut(container).ok_or((StatusCode::NOT_FOUND, "ContainerNotFound"))?;
        work(container.get_mut(name).ok_or((StatusCode::NOT_FOUND, "BlobNotFound"))?, now)
    }

    fn containers(&self) -> MutexGuard<'_, BTreeMap<String, Container>> {
        self.containers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINUTE: Duration = Duration::from_secs(60);

    fn blobs() -> (Arc<Clock>, Blobs) {
        let clock = Arc::<Clock>::default();
        let blobs = Blobs::new(clock.clone());
        blobs.put("c", "b", "text");
        (clock, blobs)
    }

    #[test]
    fn a_lease_is_held_by_one_until_it_is_released_or_over() {
        let (clock, blobs) = blobs();
        let first = blobs.acquire("c", "b", MINUTE).unwrap();
        assert_eq!(blobs.acquire("c", "b", MINUTE).unwrap_err().1, "LeaseAlreadyPresent");
        blobs.release("c", "b", &first).unwrap();
        let second = blobs.acquire("c", "b", MINUTE).unwrap();
        assert_eq!(blobs.renew("c", "b", &first), Err(LOST));
        assert_eq!(blobs.release("c", "b", &first), Err(LOST));
        clock.set_ahead(59);
        assert_eq!(blobs.acquire("c", "b", MINUTE).unwrap_err().1, "LeaseAlreadyPresent");
        blobs.renew("c", "b", &second).unwrap();
        clock.set_ahead(61);
        assert_eq!(blobs.acquire("c", "b", MINUTE).unwrap_err().1, "LeaseAlreadyPresent", "it was renewed");
        clock.set_ahead(120);
        assert_eq!(blobs.leased_until("c", "b"), None);
        blobs.renew("c", "b", &second).expect("nobody else has it");
        clock.set_ahead(181);
        blobs.acquire("c", "b", MINUTE).unwrap();
        assert_eq!(blobs.renew("c", "b", &second), Err(LOST));
    }

    #[test]
    fn only_its_holder_writes_a_leased_blob() {
        let (clock, blobs) = blobs();
        let lease = blobs.acquire("c", "b", MINUTE).unwrap();
        let write = |lease: Option<&str>| blobs.write("c", "b", "new".into(), lease).map_err(|(_, code)| code);
        assert_eq!(write(None), Err("LeaseIdMissing"));
        assert_eq!(write(Some("other")), Err("LeaseIdMismatchWithBlobOperation"));
        assert_eq!(blobs.text("c", "b").unwrap(), "text");
        write(Some(&lease)).unwrap();
        assert_eq!(blobs.text("c", "b").unwrap(), "new");
        clock.set_ahead(61);
        write(None).unwrap();
        assert_eq!(blobs.renew("c", "b", &lease), Err(LOST), "it was over, and the blob was written");
        assert_eq!(write(Some(&lease)), Err("LeaseNotPresentWithBlobOperation"));
    }

    #[test]
    fn what_does_not_exist_is_said() {
        let (_, blobs) = blobs();
        assert_eq!(blobs.write("none", "b", "new".into(), None).unwrap_err().1, "ContainerNotFound");
        assert_eq!(blobs.read("none", "b").unwrap_err().1, "ContainerNotFound");
        assert_eq!(blobs.acquire("c", "none", MINUTE).unwrap_err().1, "BlobNotFound");
        assert!(blobs.create_container("none") && !blobs.create_container("none"));
    }
}
