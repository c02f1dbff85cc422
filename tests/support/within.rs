//! Runs stand-ins inside this process: they start faster than processes.

use emulators::{cosmos, iot_hub, rapidm2m, things_stack};

use super::Emulator;

impl Emulator {
    pub async fn rapidm2m(options: rapidm2m::Options) -> Self {
        let running = rapidm2m::start(options).await.unwrap();
        Self::within("rapidm2m", running.ready().clone(), running)
    }

    pub async fn cosmos(options: cosmos::Options) -> Self {
        let running = cosmos::start(options).await.unwrap();
        Self::within("cosmos", running.ready().clone(), running)
    }

    pub async fn iot_hub(options: iot_hub::Options) -> Self {
        let running = iot_hub::start(options).await.unwrap();
        Self::within("iot_hub", running.ready().clone(), running)
    }

    pub async fn things_stack(options: things_stack::Options) -> Self {
        let running = things_stack::start(options).await.unwrap();
        Self::within("things_stack", running.ready().clone(), running)
    }
}
