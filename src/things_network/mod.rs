//! The Things Network: what its webhooks say, and what becomes of it. Nothing here knows of functions or of the hub.
//!
//! | Part | |
//! |---|---|
//! | `webhook` | a body: which format, an uplink or another event, and whose |
//! | `v2`, `v3` | the two formats; V3 is that of The Things Stack, the one that exists today |
//! | `uplink`, `event` | what both come to: telemetry and its message id |
//! | `position` | positions under the names of IoT Central |
//! | `queued` | a webhook on its way through the storage queue |
//! | `template` | device ids from application, device and DevEUI |
//! | `downlink` | from a cloud-to-device message to a downlink |
//! | `stack` | The Things Stack as a service: takes downlinks |
//!
//! Everything but `stack` is pure.

pub mod downlinks;
pub mod event;
pub mod forwarding;
mod position;
pub mod queued;
pub mod receiving;
mod tally;
pub mod template;
pub mod uplink;
mod v2;
mod v3;
pub mod webhook;
