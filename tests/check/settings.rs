//! Tests wrong settings, and what `check` can report without any request.

use serde_json::Value;

use crate::check::{
    command::{Settings, run, settings},
    services::{Report, world},
    vault::{Fault, Vault},
};

fn rows(out: &str) -> Vec<Value> {
    out.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[tokio::test]
async fn each_problem_is_a_row() {
    let wrong = settings([
        ("M2MBackendURL", "ftp://hunter2@x"),
        ("Customer_ID", "c"),
        ("Site_ID", " "),
        ("IoTHubURL", "myhub"),
        ("IoTHubDeviceKey", "hunter2!"),
    ]);
    let ran = run(&["check", "--json"], &wrong).await;
    assert_eq!((ran.code, ran.err.as_str()), (2, ""), "{ran:?}");
    ran.has_no(["hunter2"]);
    let rows = rows(&ran.out);
    for (what, text, to_do) in [
        ("M2MBackendURL", "is not an http(s) URL", "write it like https://cloud.microtronics.com/api/1/"),
        ("Base64encodedUsernamePassword", "is not set", "set it: the Base64 of user:password"),
        ("Site_ID", "is set but empty", "give it a value or remove it"),
        ("IoTHubURL", "is \"myhub\", a name without dots", "write myhub.azure-devices.net"),
        ("IoTHubDeviceKey", "holds a device key that is not Base64", "copy it again from the device's page"),
    ] {
        let row = rows.iter().find(|row| row["what"] == what).unwrap_or_else(|| panic!("{what}: {rows:#?}"));
        assert_eq!((&row["result"], &row["text"], &row["toDo"]), (&"failed".into(), &text.into(), &to_do.into()));
    }
    assert_eq!(rows[rows.len() - 2]["what"], "services");
    assert_eq!(rows[rows.len() - 2]["result"], "skipped");
    let table = run(&["check"], &wrong).await;
    assert_eq!(table.code, 2);
    assert!(table.out.contains("IoTHubDeviceKey"), "{table:?}");
    table.has_no(["hunter2"]);
}

#[tokio::test]
async fn offline_nobody_is_asked() {
    let mut world = world().await;
    world.backend.away(true).await;
    world.cosmos.away(true).await;
    let report = Report::of(&world, &["--offline"]).await;
    assert_eq!(report.ran.code, 0, "{report:#?}");
    assert_eq!(report.of_result("ok"), ["settings"]);
    assert_eq!(report.of_result("skipped"), ["services", "storage of the queues"]);
    assert_eq!(world.backend.get("counts").await["requests"], 0);

    world.unset("AzureStorageConnectionString");
    let report = Report::of(&world, &["--offline"]).await;
    assert_eq!((report.ran.code, report.of_result("failed")), (1, vec!["storage of the queues"]));
    world.set("IoTHubTrustedCa", "/nowhere/ca.pem");
    let report = Report::of(&world, &["--offline"]).await;
    assert_eq!((report.ran.code, report.of_result("failed")), (2, vec!["IoTHubTrustedCa"]));
}

#[tokio::test]
async fn a_name_with_other_capitals_is_a_warning() {
    let mut world = world().await;
    world.set("overlapseconds", "60");
    let report = Report::of(&world, &["--offline"]).await;
    assert_eq!(report.row("overlapseconds", "warning")["toDo"], "did you mean OverlapSeconds? Rename it");
}

/// The timer's process may take no webhooks. Then it has no address for downlinks but that of the settings.
#[tokio::test]
async fn a_timer_for_commands_without_an_address_is_a_warning() {
    let mut world = world().await;
    world.set("DownlinkPollSeconds", "10");
    let report = Report::of(&world, &["--offline"]).await;
    assert_eq!(
        report.row("DownlinkPollSeconds", "warning")["toDo"],
        "set ThingsStackUrl and ThingsStackDownlinkApiKey"
    );
    world.set("ThingsStackUrl", "https://eu1.cloud.thethings.network");
    world.set("ThingsStackDownlinkApiKey", "NNSXS.HUNTER2");
    let report = Report::of(&world, &["--offline"]).await;
    let text = report.row("DownlinkPollSeconds", "ok")["text"].to_string();
    assert!(text.contains("every 10 s") && text.contains("eu1.cloud.thethings.network"), "{text}");
    report.ran.has_no(["HUNTER2"]);
}

#[tokio::test]
async fn what_a_vault_has_counts_unless_it_is_not_asked() {
    let world = world().await;
    let key = world.settings["IoTHubDeviceKey"].clone();
    let vault = Vault::start(&[("IoTHubDeviceKey", &key)], None).await;
    // The settings make the hub's authority trusted, the platform makes the vault's trusted.
    let with = |of_vault: Settings| {
        let mut world_settings = world.settings.clone();
        world_settings.remove("IoTHubDeviceKey");
        world_settings.extend(of_vault);
        world_settings
    };
    let ran = run(&["check", "--json"], &with(vault.settings())).await;
    assert_eq!(ran.code, 0, "{ran:?}");
    assert_eq!(rows(&ran.out)[0]["text"], "has IoTHubDeviceKey");
    ran.has_no([key.as_str()]);

    let ran = run(&["check", "--json", "--offline"], &with(vault.settings())).await;
    assert_eq!(ran.code, 0, "{ran:?}");
    let offline = rows(&ran.out);
    assert_eq!((&offline[0]["what"], &offline[0]["result"]), (&"Key Vault".into(), &"skipped".into()));
    assert_eq!((&offline[1]["what"], &offline[1]["result"]), (&"IoTHubDeviceKey".into(), &"warning".into()));

    let refused = Vault::start(&[], Some(Fault::Vault(403, "ForbiddenByFirewall"))).await;
    let ran = run(&["check", "--json"], &with(refused.settings())).await;
    assert_eq!(ran.code, 2, "{ran:?}");
    let row = &rows(&ran.out)[0];
    assert_eq!((&row["what"], &row["result"]), (&"KeyVaultURI".into(), &"failed".into()));
    assert!(row["text"].as_str().unwrap().contains("ForbiddenByFirewall"), "{row}");
    assert!(row["toDo"].as_str().unwrap().contains("Key Vault Secrets User"), "{row}");
}

#[tokio::test]
async fn what_the_log_is_to_be_is_checked_too() {
    let mut world = world().await;
    world.set("LOG_FORMAT", "xml");
    world.set("RUST_LOG", "a=b=c");
    let report = Report::of(&world, &["--offline"]).await;
    assert_eq!((report.ran.code, report.of_result("failed")), (2, vec!["RUST_LOG", "LOG_FORMAT"]), "{report:#?}");
    assert_eq!(report.row("LOG_FORMAT", "failed")["toDo"], "write text, brief or json", "{report:#?}");
    assert_eq!(report.of_result("ok"), [""; 0], "they are not complete");
}
