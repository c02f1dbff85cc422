//! The Things Network: takes webhooks of The Things Stack, forwards their uplinks to the hub, and passes downlinks back.
//!
//! | Module | |
//! |---|---|
//! | `receiving` | a webhook is checked, answered and put into the queue |
//! | `forwarding` | a message of the queue is sent as its LoRaWAN device |
//! | `downlinks` | cloud-to-device messages become downlinks |
//! | `webhook` | a body: which format, an uplink or another event |
//! | `v2`, `v3` | the two formats; V3 is that of The Things Stack, the one in use today |
//! | `uplink`, `message_id`, `event` | the result of both formats: telemetry and its message id |
//! | `reception`, `position`, `ids`, `time` | parts of them: gateway and signal, positions under the names of IoT Central, ids, times |
//! | `correlation` | which command an event is about |
//! | `extras`, `members` | what a message can have beside that, and what it shall have |
//! | `door`, `cut`, `object` | a webhook that is changed before it is queued: unwrapped, given its ids, cut down |
//! | `queued` | a webhook in the storage queue |
//! | `tenant` | the tenant of a webhook |
//! | `template` | device ids from application, device, DevEUI and tenant |
//! | `registry` | the webhooks in The Things Stack: what is there, what shall be, and how they fare |
//! | `storage` | fetches what the Storage Integration of The Things Stack has kept |
//! | `tally` | what the functions did, in one log line a minute |

mod correlation;
pub mod cut;
pub mod door;
pub mod downlinks;
pub mod event;
mod extras;
pub mod forwarding;
pub mod ids;
pub mod members;
mod message_id;
mod object;
mod position;
pub mod queued;
pub mod receiving;
mod reception;
pub mod registry;
pub mod storage;
mod tally;
pub mod template;
mod tenant;
mod time;
pub mod uplink;
mod v2;
mod v3;
pub mod webhook;
