//! Tests LoRaWAN devices under faults. The tests call the handler as the host does. They redeliver a message that it
//! does not take, as the queue does.

mod commands;
mod dropped;
mod forwarding;
mod world;

pub use world::{DEVICE, World};
