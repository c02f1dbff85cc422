//! The behaviour of a queue and of leased blobs, in the emulated account and (started by hand) in a real one.

use std::time::Duration;

use bytes::Bytes;
use tokio::time::{sleep, timeout};

use super::{Container, Counts, Encoding, Error, LARGEST_MESSAGE, Message, Queue, StorageAccount};
use crate::storage;

const LONG: Duration = Duration::from_secs(600);

fn in_account(connection: &str, name: &str, encoding: Encoding) -> Queue {
    Queue::open(&StorageAccount::parse(connection).unwrap(), name, encoding).unwrap()
}

fn text(message: &Message) -> &str {
    std::str::from_utf8(&message.content).unwrap()
}

/// Expects a queue that does not exist yet.
async fn behaves_as_a_queue(queue: &Queue) {
    assert!(queue.take(32, LONG).await.unwrap().is_empty());
    assert_eq!(queue.counts().await.unwrap(), Counts::default());
    let texts = ["first <&> \"\u{20ac}\"", "second\r\n", "{\"third\":1}"];
    for text in texts {
        queue.put(Bytes::from_static(text.as_bytes())).await.unwrap();
    }
    timeout(LONG, queue.added()).await.unwrap();
    assert_eq!(queue.peek().await.unwrap().iter().map(text).collect::<Vec<_>>(), texts);
    assert_eq!(queue.counts().await.unwrap(), Counts { visible: 3, invisible: 0 });

    let mut taken = queue.take(2, LONG).await.unwrap();
    assert_eq!(taken.iter().map(|taken| text(&taken.message)).collect::<Vec<_>>(), texts[..2]);
    assert_eq!(queue.counts().await.unwrap(), Counts { visible: 1, invisible: 2 });
    let (mut second, first) = (taken.pop().unwrap(), taken.pop().unwrap());
    assert_eq!((first.message.dequeue_count, first.message.id.len()), (1, 36));
    assert_eq!((first.message.expires - first.message.inserted).num_days(), 7);
    let invisible = first.message.next_visible.unwrap() - first.message.inserted;
    assert!((599..=602).contains(&invisible.num_seconds()), "{invisible}");
    queue.delete(&first).await.unwrap();
    assert_eq!(queue.delete(&first).await, Err(Error::NotYours));

    let stale = second.clone();
    queue.update(&mut second, LONG).await.unwrap();
    assert_eq!(queue.delete(&stale).await, Err(Error::NotYours), "an update makes another receipt");
    queue.update(&mut second, Duration::ZERO).await.unwrap();
    let mut rest = queue.take(32, LONG).await.unwrap();
    rest.sort_by_key(|taken| taken.message.dequeue_count);
    let seen: Vec<_> = rest.iter().map(|taken| (text(&taken.message), taken.message.dequeue_count)).collect();
    assert_eq!(seen, [(texts[2], 1), (texts[1], 2)], "the text is still there");
    assert_eq!(queue.update(&mut stale.clone(), LONG).await, Err(Error::NotYours));
    for taken in &rest {
        queue.delete(taken).await.unwrap();
    }
    let becomes_empty = async {
        while queue.counts().await.unwrap() != Counts::default() {
            sleep(Duration::from_millis(50)).await;
        }
    };
    timeout(LONG, becomes_empty).await.unwrap();
}

/// Checks a message of the largest size and one that is a byte larger.
async fn has_a_largest_message(queue: &Queue, largest: usize) {
    queue.put(vec![b'x'; largest].into()).await.unwrap();
    let Err(Error::TooLarge(bytes)) = queue.put(vec![b'x'; largest + 1].into()).await else { panic!("too large") };
    assert!(bytes > LARGEST_MESSAGE);
    let taken = queue.take(32, LONG).await.unwrap();
    assert_eq!((taken.len(), taken[0].message.content.len()), (1, largest));
    queue.delete(&taken[0]).await.unwrap();
}

fn container(connection: &str, name: &str) -> Container {
    Container::open(&StorageAccount::parse(connection).unwrap(), name).unwrap().unwrap()
}

/// Expects a container that does not exist yet.
async fn behaves_as_a_container(container: &Container) {
    const MINUTE: Duration = Duration::from_secs(60);
    let (lock, status) = ("locks/host/Host.Functions.f.Listener", "timers/host/Host.Functions.f/status");
    assert_eq!(container.get(status).await.unwrap(), None);
    let lease = container.acquire(lock, MINUTE).await.unwrap().expect("it and its container are created");
    assert_eq!(container.acquire(lock, MINUTE).await.unwrap(), None);
    container.renew(lock, &lease).await.unwrap();
    container.release(lock, &lease).await.unwrap();
    assert_eq!(container.renew(lock, &lease).await, Err(Error::NotYours));
    let second = container.acquire(lock, MINUTE).await.unwrap().unwrap();
    assert_eq!(container.release(lock, &lease).await, Err(Error::NotYours));
    container.release(lock, &second).await.unwrap();
    for text in ["{\"Last\":1}", "\u{20ac}", ""] {
        container.put(status, text).await.unwrap();
        assert_eq!(container.get(status).await.unwrap().as_deref(), Some(text));
    }
}

#[tokio::test]
async fn a_container_of_an_account() {
    let service = storage::start(storage::Options::default()).await.unwrap();
    behaves_as_a_container(&container(&service.ready().connection, "azure-webjobs-hosts")).await;
    let key = service.ready().connection.replace("AccountKey=", "AccountKey=d3Jvbmcg");
    let refused = container(&key, "azure-webjobs-hosts").get("x").await;
    assert!(matches!(refused, Err(Error::Refused(_))), "{refused:?}");
}

#[tokio::test]
async fn a_queue_of_an_account() {
    let service = storage::start(storage::Options::default()).await.unwrap();
    behaves_as_a_queue(&in_account(&service.ready().connection, "base64", Encoding::Base64)).await;
    behaves_as_a_queue(&in_account(&service.ready().connection, "plain", Encoding::None)).await;
    has_a_largest_message(
        &in_account(&service.ready().connection, "base64", Encoding::Base64),
        LARGEST_MESSAGE / 4 * 3,
    )
    .await;
}

#[tokio::test]
async fn what_is_not_encoded_is_copied_as_it_is() {
    let service = storage::start(storage::Options::default()).await.unwrap();
    let plain = in_account(&service.ready().connection, "uplinks", Encoding::None);
    plain.put(Bytes::from_static(b"{not base64}")).await.unwrap();
    let encoded = in_account(&service.ready().connection, "uplinks", Encoding::Base64);
    let taken = encoded.take(1, LONG).await.unwrap().remove(0);
    assert!(taken.message.is_undecodable && text(&taken.message) == "{not base64}");
    let poison = in_account(&service.ready().connection, "uplinks-poison", Encoding::Base64);
    poison.put_copy(&taken.message).await.unwrap();
    let copied = in_account(&service.ready().connection, "uplinks-poison", Encoding::None).peek().await.unwrap();
    assert_eq!(text(&copied[0]), "{not base64}");
}

#[tokio::test]
async fn an_account_that_refuses_or_is_away_is_named() {
    let service = storage::start(storage::Options::default()).await.unwrap();
    let key = service.ready().connection.replace("AccountKey=", "AccountKey=d3Jvbmcg");
    let Err(Error::Refused(problem)) = in_account(&key, "uplinks", Encoding::Base64).peek().await else { panic!() };
    assert!(problem.contains("403 (AuthenticationFailed) for /devstoreaccount1/uplinks/messages"), "{problem}");
    let connection = service.ready().connection.clone();
    drop(service);
    let queue = in_account(&connection, "uplinks", Encoding::Base64);
    let Err(Error::Away(problem)) = queue.put(Bytes::from_static(b"x")).await else { panic!() };
    assert!(problem.starts_with(&format!("no answer from the storage account at {}", queue.url())), "{problem}");
}

#[tokio::test]
#[ignore = "for a real account or Azurite, whose connection string is in QUEUES_ACCOUNT"]
async fn a_queue_and_a_container_of_a_real_account() {
    let connection = std::env::var("QUEUES_ACCOUNT").expect("QUEUES_ACCOUNT");
    let name = format!("test-{:x}", fastrand::u64(..));
    behaves_as_a_queue(&in_account(&connection, &name, Encoding::Base64)).await;
    behaves_as_a_queue(&in_account(&connection, &format!("{name}-plain"), Encoding::None)).await;
    has_a_largest_message(&in_account(&connection, &name, Encoding::Base64), LARGEST_MESSAGE / 4 * 3).await;
    behaves_as_a_container(&container(&connection, &name)).await;
}
