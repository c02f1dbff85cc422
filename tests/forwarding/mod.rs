//! Tests the main job from end to end. The handler runs as its own process and is called as the Functions host calls
//! it; the backend, Cosmos DB and IoT Hub are processes of their own, too. The tests look only from outside: at what
//! the hub received, the ledger's documents, the answers and the log. They use no type of the product, so that a wrong
//! field name cannot pass on both sides.

#[cfg(feature = "azure-iot-sdk")]
mod azure_iot_sdk;
mod backend_faults;
mod backlog;
mod corrections;
mod delivery;
mod dropped;
mod earlier_version;
mod economy;
mod fault_switches;
mod gate;
mod hub_faults;
mod identity;
mod late;
mod late_writes;
mod ledger_faults;
mod marking;
mod one_thread;
mod outages;
mod pollers;
mod provisioning;
mod queue;
mod queue_hosts;
mod selection;
mod startup;
mod transports;
mod wrong_container;

use crate::support;
