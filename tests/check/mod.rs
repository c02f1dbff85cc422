//! Tests `check`, and the Key Vault that settings may come from. The binary is a process of its own; the services are
//! stand-ins.
//!
//! | Module | |
//! |---|---|
//! | `vault` | a Key Vault, and the endpoint where an app's identity gets its tokens |
//! | `command` | one run of the binary, and the check that its output contains no secret |
//! | `key_vault` | settings in a vault |
//! | `services` | a world of services, and `check`'s rows for it |
//! | `well` | all is well, and `check` leaves nothing behind |
//! | `faults` | every row with every fault |
//! | `queues` | messages in the queues of uplinks |
//! | `webhooks` | the webhooks in The Things Stack |
//! | `settings` | wrong settings, `--offline`, `--json` |

mod command;
mod faults;
mod key_vault;
mod queues;
mod services;
mod settings;
mod vault;
mod webhooks;
mod well;
