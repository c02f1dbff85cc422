//! Tests every dependency with every fault: what is recorded, what the user sees, when it recovers, and that nothing is
//! lost. The handler is a process of its own, over real sockets. Each cell of a table has a world of its own.
//!
//! | Module | |
//! |---|---|
//! | `fault`, `cell` | the faults of a service that speaks HTTP; a cell: the fault and its expected result |
//! | `polls` | rapidM2M sites: backend, ledger, hub, DPS, devices; over MQTT too |
//! | `uplinks` | LoRaWAN devices: hub, DPS, devices; messages to devices, and downlinks |
//! | `table` | runs the cells of a table, several at a time |
//! | `page` | `docs/faults.md`, made from the results of the tests |
//! | `secrets` | that no output contains a secret |
//! | `trust`, `limits` | certificates, and bodies without end |

mod cell;
mod fault;
mod limits;
mod page;
mod polls;
mod secrets;
mod table;
mod trust;
mod uplinks;
