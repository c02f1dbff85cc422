//! Tests faults of the Device Provisioning Service, and of a hub that is used with its policy.

use serde_json::json;

use super::case::{Service::Hub, Wrong, answer, failed, run, set};
use crate::check::services::{Report, world};

const DPS: &str = "DPS ";
const PUMPS: &str = "AzureIotHubConnectionString__pumps";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_service_is_refusing_or_away() {
    let (scope, group, endpoint) =
        ("DPSIDScopeDefault", "DPSEnrollmentGroupSymmetricKeyDefault", "DPSGlobalDeviceEndpoint");
    let answered = |effect| Wrong::Trouble(Hub, "/registrations/iothub-connector-check", effect);
    let nowhere = set(endpoint, "127.0.0.1:9");
    run([
        failed(DPS).when(set(scope, "0neWRONG")).kind("dps_unknown_scope").says("(404)", "check DPSIDScope"),
        failed(DPS).when(set(group, "d3Jvbmc=")).kind("dps_unauthorized").says("(401)", "check DPSEnrollmentGroup"),
        failed(DPS).when(nowhere).kind("dps_unreachable").says("cannot be reached", "check DPSGlobalDeviceEndpoint"),
        failed(DPS).when(answered(answer(503))).kind("dps_status").says("503", "try again"),
        failed(DPS).when(answered(answer(404))).kind("dps_garbage").says("makes no sense", "check DPSGlobal"),
        failed(DPS).when(answered(json!("garbage"))).kind("dps_garbage").says("makes no sense", "check DPSGlobal"),
    ])
    .await;
}

#[tokio::test]
async fn a_policy_is_not_taken() {
    let mut world = world().await;
    let wrong = world.settings[PUMPS].replace(world.hub.ready("policyKey"), "d3Jvbmc=");
    world.set(PUMPS, &wrong);
    let report = Report::of(&world, &[]).await;
    let row = report.row("hub ", "failed");
    assert!(row["what"].as_str().unwrap().ends_with("(pumps)"), "{row}");
    assert_eq!((&row["kind"], report.of_result("failed").len()), (&"hub_refused".into(), 1), "{row}");
    assert_eq!(row["toDo"], "check the policy's name and key in AzureIotHubConnectionString…");

    let nowhere = "HostName=127.0.0.1:9;SharedAccessKeyName=device;SharedAccessKey=d3Jvbmc=";
    let away = failed("hub 127.0.0.1:9 (pumps)").when(set(PUMPS, nowhere)).kind("hub_unreachable");
    run([away.says("cannot be reached", "check the hub's name")]).await;
}
