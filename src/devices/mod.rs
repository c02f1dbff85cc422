//! stub
use crate::hub::Device;
use std::sync::Arc;
use tokio::time::Instant;
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Owner {
    pub system: &'static str,
    pub group: String,
    pub name: String,
}
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DeviceError {
    #[error("underway")]
    Underway { a: u8 },
}
impl DeviceError {
    pub fn kind(&self) -> &'static str {
        "x"
    }
}
pub struct Devices;
impl Devices {
    pub async fn device(&self, _: &Owner, _: Instant) -> Result<Arc<Device>, DeviceError> {
        unimplemented!()
    }
    pub async fn refused(&self, _: &Owner, _: &Arc<Device>) -> bool {
        false
    }
    pub fn try_again(&self) {}
}
