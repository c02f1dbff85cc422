//! LoRaWAN devices under faults. The handler is called as the host calls it, and a message that it does not take is given
//! again, as the queue does it.

mod commands;
mod dropped;
mod forwarding;
mod world;

pub use world::{DEVICE, World};
