//! Finds the tenant of a webhook: the header `X-Tts-Domain`, or else the member `network_ids`. Pure.
//! <https://www.thethingsindustries.com/docs/the-things-stack/concepts/data-formats/>

use serde::Deserialize;

use crate::iot_hub::devices::Tenant;

#[derive(Deserialize)]
struct Webhook<'a> {
    #[serde(borrow)]
    uplink_message: Option<Uplink<'a>>,
}

#[derive(Deserialize)]
struct Uplink<'a> {
    #[serde(borrow)]
    network_ids: Option<NetworkIds<'a>>,
}

#[derive(Deserialize)]
struct NetworkIds<'a> {
    tenant_id: Option<&'a str>,
    cluster_id: Option<&'a str>,
}

/// The tenant, if the webhook names it. All webhooks of one tenant have the header or none has it, so that a device's events
/// and uplinks have the same tenant.
pub fn of(webhook: &str, domain: Option<&str>) -> Option<Tenant> {
    let in_body = || {
        let ids = serde_json::from_str::<Webhook<'_>>(webhook).ok()?.uplink_message?.network_ids?;
        Tenant::of_network(ids.tenant_id, ids.cluster_id)
    };
    domain.and_then(Tenant::of_domain).or_else(in_body)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_header_comes_before_the_body() {
        let body = r#"{"uplink_message":{"network_ids":{"net_id":"000013","tenant_id":"north","cluster_id":"eu1"}}}"#;
        let of_body = Tenant::of_network(Some("north"), Some("eu1"));
        let of_header = Tenant::of_domain("south.nam1.cloud.thethings.industries");
        assert_eq!(of(body, Some("south.nam1.cloud.thethings.industries")), of_header);
        assert_eq!(of(body, None), of_body);
        assert_eq!(of(body, Some("no domain")), of_body);
        for other in ["{}", r#"{"uplink_message":{}}"#, r#"{"uplink_message":{"network_ids":7}}"#, "[1]"] {
            assert_eq!(of(other, None), None, "{other}");
        }
    }
}
