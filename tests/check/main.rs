//! `check`, and the Key Vault that settings may come from. The binary is a process of its own; the services are stand-ins.
//!
//! | Module | |
//! |---|---|
//! | `authority` | certificates that the binary trusts |
//! | `vault` | a Key Vault, and the endpoint where an app's identity gets its tokens |
//! | `command` | one run of the binary, and that no secret stands in what it says |
//! | `key_vault` | what comes of settings in a vault |
//! | `services` | a world of services, and the rows that `check` has for it |
//! | `well` | all is well, and nothing is left behind |
//! | `faults` | every row with every fault |
//! | `queues` | what waits in the queues of uplinks
//! | `settings` | wrong settings, `--offline`, `--json` |

mod authority;
mod command;
mod faults;
mod key_vault;
mod queues;
mod services;
mod settings;
#[path = "../replay/storage.rs"]
#[allow(dead_code, reason = "tests/replay uses the rest")]
mod storage;
#[path = "../forwarding/support/mod.rs"]
#[allow(dead_code, unused_imports, reason = "tests/forwarding uses the rest")]
mod support;
mod vault;
mod well;
