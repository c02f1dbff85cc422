//! Tests settings that are absent in the environment and present in a Key Vault.

use std::{os::unix::fs::PermissionsExt as _, path::Path};

use futures::future::join_all;

use crate::check::{
    command::{Ran, Settings, run, settings},
    vault::{APP_SECRET, Fault, TOKEN, Vault},
};

const KEY: &str = "aHVudGVyMi1vZi10aGUtZGV2aWNl";
const EXPIRES: &str = "--expires=2026-01-01T01:00:00Z";
/// All settings that `serve` needs, as a vault holds them.
const ENOUGH: [(&str, &str); 10] = [
    ("M2MBackendURL", "http://127.0.0.1:9/api/1/"),
    ("Base64encodedUsernamePassword", "ZGVtbzpodW50ZXIy"),
    ("Customer-ID", "Demo Water Utility"),
    ("Site-ID", "Well 7"),
    ("Channelnames", "ch0"),
    ("M2MDocumentsDBUri", "http://127.0.0.1:9/"),
    ("M2MDocumentsDBPrimaryKey", "aHVudGVyMi1vZi1jb3Ntb3M="),
    ("IoTHubURL", "myhub.azure-devices.net"),
    ("IoTHubDeviceId", "gateway-1"),
    ("IoTHubDeviceKey", KEY),
];
const SECRETS: [&str; 7] = [APP_SECRET, TOKEN, KEY, "hunter2", "ZGVtbzpodW50ZXIy", "aHVudGVyMi", "please log in"];

async fn sas(vault: &Vault, own: Settings) -> Ran {
    let mut settings = vault.settings();
    settings.extend(own);
    run(&["sas", EXPIRES], &settings).await
}

/// Starts the handler with a port that it cannot have: it reads its settings first, and then reports the port.
async fn serve(mut settings: Settings, port: &str) -> Ran {
    settings.insert("FUNCTIONS_CUSTOMHANDLER_PORT".into(), port.into());
    settings.insert("AZURE_FUNCTIONS_ENVIRONMENT".into(), "Development".into());
    run(&["serve"], &settings).await
}

#[tokio::test]
async fn what_is_absent_comes_from_the_vault_and_what_is_there_wins() {
    let all = [
        ("IoTHubURL", "of-the-vault.azure-devices.net"),
        ("iothubdeviceid", "pump-7"),
        ("IoTHubDeviceKey", KEY),
        ("DPSIDScope-pumps", "0ne1"),
        ("DPSIDScopeDefault", "0ne2"),
        ("AzureStorageConnectionString", "hunter2"),
        ("somebody-elses-password", "hunter2"),
    ];
    let vault = Vault::start(&all, None).await;
    let own = settings([("IoTHubURL", "own.azure-devices.net"), ("DPSIDScope", "0ne3")]);
    let ran = sas(&vault, own).await;
    assert_eq!(ran.code, 0, "{ran:?}");
    assert!(ran.err.contains("token for device \"pump-7\" of hub own.azure-devices.net"), "{ran:?}");
    assert!(ran.out.starts_with("SharedAccessSignature sr=own.azure-devices.net%2Fdevices%2Fpump-7"), "{ran:?}");
    ran.has_no(SECRETS);
    assert_eq!(vault.read(), ["DPSIDScope-pumps", "IoTHubDeviceKey", "iothubdeviceid"], "nothing else is read");
}

#[tokio::test]
async fn the_handler_starts_with_nothing_but_a_vault() {
    let vault = Vault::start(&ENOUGH, None).await;
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port().to_string();
    let ran = serve(vault.settings(), &port).await;
    assert_eq!(ran.code, 1, "{ran:?}");
    assert!(ran.err.contains(&format!("cannot listen on 127.0.0.1:{port}")), "{ran:?}");
    let said = format!("{}{}", ran.out, ran.err);
    assert!(
        said.contains("Key Vault") && said.contains("M2MDocumentsDBUri, Site_ID"),
        "it says what it has from there: {said}"
    );
    ran.has_no(SECRETS);
}

/// In Azure: a role that was just given takes minutes to work.
#[tokio::test]
async fn a_vault_that_answers_later_completes_the_settings() {
    let vault = Vault::start(&ENOUGH, Some(Fault::Vault(403, "ForbiddenByRbac"))).await;
    let output = crate::support::Output::default();
    let handler = crate::support::Handler::start(&vault.settings(), output.clone()).await;
    let refused = handler.invoke().await;
    assert_eq!(refused.status, 500, "{refused:?}");
    let said = refused.body.to_string();
    assert!(said.contains("KeyVaultURI") && said.contains("Key Vault Secrets User"), "{said}");
    vault.heal();
    let give_up = std::time::Instant::now() + std::time::Duration::from_secs(60);
    while !output.text().contains("rapidM2M is on") {
        assert!(std::time::Instant::now() < give_up, "{}", output.text());
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
    }
    assert!(SECRETS.iter().all(|secret| !output.text().contains(secret)), "{}", output.text());
}

#[tokio::test]
async fn a_secret_that_is_gone_is_absent() {
    let vault = Vault::start(&ENOUGH, Some(Fault::Gone)).await;
    let ran = serve(vault.settings(), "1").await;
    assert_eq!(ran.code, 2, "{ran:?}");
    assert!(ran.err.contains("no settings found"), "{ran:?}");
}

#[tokio::test]
async fn every_trouble_is_a_setting_at_fault() {
    let cases = [
        (
            Some(Fault::Identity(400)),
            "the managed identity's endpoint answered 400): switch on the app's system-assigned",
        ),
        (Some(Fault::Identity(500)), "the managed identity's endpoint answered 500"),
        (
            Some(Fault::Vault(403, "ForbiddenByRbac")),
            "list its secrets (403, ForbiddenByRbac): give it the role Key Vault",
        ),
        (Some(Fault::Vault(401, "")), "does not let the app's identity list its secrets (401)"),
        (Some(Fault::Vault(404, "x")), "answered 404"),
        (Some(Fault::Vault(503, "x")), "answered 503"),
        (
            Some(Fault::Read(403, "ForbiddenByPolicy")),
            "does not let the app's identity read its secrets (403, ForbiddenByPolicy)",
        ),
        (Some(Fault::Garbage), "does not answer as a Key Vault does"),
        (Some(Fault::Endless), "does not answer as a Key Vault does"),
        (Some(Fault::Hang), "did not give its secrets within 20 s"),
    ];
    join_all(cases.map(async |(fault, expected)| {
        let vault = Vault::start(&ENOUGH, fault).await;
        refused(vault.settings(), "KeyVaultURI", expected).await;
    }))
    .await;
}

#[tokio::test]
async fn a_vault_that_is_away_or_not_trusted_is_told_so() {
    let vault = Vault::start(&ENOUGH, None).await;
    // Bound and not listening: it refuses connections, and no other test can get it.
    let refusing = tokio::net::TcpSocket::new_v4().unwrap();
    refusing.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let free = refusing.local_addr().unwrap();
    let with = |name: &str, value: &str| {
        let mut settings = vault.settings();
        settings.insert(name.to_owned(), value.to_owned());
        settings
    };
    let other = Vault::start(&[], None).await;
    let cases = [
        (with("KeyVaultURI", &format!("https://{free}/")), "names a vault that cannot be reached"),
        (with("KeyVaultURI", &other.url), "invalid peer certificate"),
        (with("KeyVaultURI", "http://myvault.vault.azure.net/"), "is not the https URL of a Key Vault"),
        (
            with("IDENTITY_ENDPOINT", &format!("http://{free}/msi/token")),
            "the managed identity's endpoint: Connection refused",
        ),
    ];
    join_all(cases.map(async |(settings, expected)| refused(settings, "KeyVaultURI", expected).await)).await;
    assert_eq!(vault.read(), [""; 0]);
}

#[tokio::test]
async fn a_disabled_secret_is_a_setting_at_fault() {
    let mut secrets = ENOUGH.to_vec();
    secrets[9].1 = "";
    let vault = Vault::start(&secrets, None).await;
    refused(vault.settings(), "IoTHubDeviceKey", "is a disabled secret in the vault").await;
    // A vault that is not needed does no harm.
    let mut own = vault.settings();
    own.insert("IoTHubDeviceKey".into(), KEY.into());
    let ran = serve(own, "x").await;
    assert!(ran.err.contains("FUNCTIONS_CUSTOMHANDLER_PORT"), "{ran:?}");
}

/// `serve` and commands report it in one line; `serve` adds where to correct it. Both exit with code 2 and print no secret.
async fn refused(settings: Settings, name: &str, expected: &str) {
    let ran = serve(settings.clone(), "1").await;
    assert_eq!((ran.code, ran.err.lines().count()), (2, 2), "{ran:?}");
    assert!(ran.err.starts_with("error: ") && ran.err.contains(expected), "{expected}: {ran:?}");
    assert!(ran.err.starts_with(&format!("error: {name}")), "{ran:?}");
    ran.has_no(SECRETS);
    let ran = run(&["sas", EXPIRES], &settings).await;
    assert_eq!((ran.code, ran.err.lines().count(), ran.out.as_str()), (2, 1, ""), "{ran:?}");
    assert!(ran.err.starts_with(&format!("error: {name} ")) && ran.err.contains(expected), "{expected}: {ran:?}");
    ran.has_no(SECRETS);
}

/// A folder with an Azure CLI that runs this script.
fn azure_cli(name: &str, script: &str) -> String {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("az-{name}-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    let az = folder.join("az");
    std::fs::write(&az, format!("#!/bin/sh\n{script}\n")).unwrap();
    std::fs::set_permissions(&az, std::fs::Permissions::from_mode(0o755)).unwrap();
    format!("{}:/usr/bin:/bin", folder.display())
}

#[tokio::test]
async fn on_a_laptop_commands_sign_in_with_the_azure_cli_and_the_handler_does_not() {
    let vault = Vault::start(&ENOUGH, None).await;
    let mut own = vault.trusted();
    let in_a_day = chrono::Utc::now().timestamp() + 24 * 3600;
    let token = format!(r#"{{"accessToken":"{TOKEN}","expires_on":{in_a_day},"tokenType":"Bearer"}}"#);
    own.insert("PATH".into(), azure_cli("good", &format!("echo '{token}'")));
    let ran = run(&["sas", EXPIRES], &own).await;
    assert!(ran.code == 0 && ran.err.contains("gateway-1"), "{ran:?}");
    ran.has_no(SECRETS);

    own.insert("PATH".into(), azure_cli("out", "echo \"Please run 'az login' to setup account.\" >&2; exit 1"));
    let ran = run(&["sas", EXPIRES], &own).await;
    assert_eq!((ran.code, ran.err.lines().count()), (2, 1), "{ran:?}");
    assert!(
        ran.err.contains("Please run 'az login'")
            && ran.err.ends_with("run `az login` (on this machine its user signs in), or remove KeyVaultURI\n"),
        "{ran:?}"
    );
}

#[tokio::test]
async fn local_takes_what_the_vault_of_its_file_has_for_settings_of_the_file() {
    let vault = Vault::start(&[("M2MBackendURL", "http://127.0.0.1:9/api/1/")], None).await;
    let file = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("vault-{}.json", std::process::id()));
    let in_file = serde_json::json!({ "IsEncrypted": false, "Values": { "KeyVaultURI": vault.url } });
    std::fs::write(&file, in_file.to_string()).unwrap();
    let app = env!("CARGO_MANIFEST_DIR");
    let mut environment = vault.settings();
    environment.remove("KeyVaultURI");
    let with_file = ["local", "--for", "1s", "--app", app, "--settings", file.to_str().unwrap()];
    let ran = run(&with_file, &environment).await;
    assert_eq!(ran.code, 2, "{ran:?}");
    for part in ["Base64encodedUsernamePassword is not set", "rapidM2M is real because M2MBackendURL is set"] {
        assert!(ran.err.contains(part), "{part}: {ran:?}");
    }
    std::fs::write(&file, r#"{"Values":{}}"#).unwrap();
    let ran = run(&with_file, &vault.settings()).await;
    assert_eq!(ran.code, 0, "what only the environment names is not read: {ran:?}");
    assert_eq!(vault.read(), ["M2MBackendURL"]);
    std::fs::remove_file(file).unwrap();
}
