//! The webhooks of an application in The Things Stack: what is there, what shall be there, and how they fare. Only commands
//! use it.
//!
//! | Module | |
//! |---|---|
//! | `document` | a webhook as The Things Stack's registry has it |
//! | `address` | where a webhook leads |
//! | `plan` | what has to change, so that a webhook leads to this app. Pure |
//! | `mask` | what a field mask must let through |
//! | `health` | whether The Things Stack reaches the app with it |
//! | `client`, `error`, `rights` | the API, how it says no, and what a key may do |

pub mod address;
pub mod client;
pub mod document;
pub mod error;
pub mod health;
mod mask;
pub mod plan;
pub mod rights;

pub use client::Registry;
pub use document::Webhook;
pub use error::RegistryError;
