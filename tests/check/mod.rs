//! `check`, and the Key Vault that settings may come from. The binary is a process of its own; the services are stand-ins.
//!
//! | Module | |
//! |---|---|
//! | `vault` | a Key Vault, and the endpoint where an app's identity gets its tokens |
//! | `command` | one run of the binary, and that no secret stands in what it says |
//! | `key_vault` | what comes of settings in a vault |
//! | `services` | a world of services, and the rows that `check` has for it |
//! | `well` | all is well, and nothing is left behind |
//! | `faults` | every row with every fault |
//! | `queues` | what waits in the queues of uplinks |
//! | `settings` | wrong settings, `--offline`, `--json` |

mod command;
mod faults;
mod key_vault;
mod queues;
mod services;
mod settings;
mod vault;
mod well;
