//! Tests what `check` says about messages in the queues of uplinks.

use crate::{
    check::{
        services::{Report, connection_string, world},
        vault::{TOKEN, Vault},
    },
    support::{Storage, World},
};

const WHAT: &str = "storage of the queues";
const STORAGE: &str = "AzureStorageConnectionString";

#[tokio::test]
async fn what_could_not_be_forwarded_is_a_warning() {
    let mut world = world().await;
    let storage = Storage::default();
    world.set(STORAGE, &connection_string(&storage).await);
    (0..7).for_each(|_| storage.add("uplinks", "bWU="));
    let text = |report: &Report, result| report.row(WHAT, result)["text"].as_str().unwrap().to_owned();
    assert_eq!(text(&Report::of(&world, &[]).await, "ok"), "7 messages wait in uplinks");
    storage.add("uplinks-rejected", "bWU=");
    (0..2).for_each(|_| storage.add("uplinks-poison", "bWU="));
    let report = Report::of(&world, &[]).await;
    assert_eq!(report.ran.code, 0, "a warning is no failure");
    assert_eq!(text(&report, "warning"), "7 messages wait in uplinks, 1 in uplinks-rejected, 2 in uplinks-poison");
    assert!(report.row(WHAT, "warning")["toDo"].as_str().unwrap().contains("replay --queue"), "{report:#?}");
    assert_eq!(storage.texts("uplinks").1, 7, "nothing is taken");
}

#[tokio::test]
async fn an_account_that_cannot_be_used_fails() {
    let mut world = world().await;
    for (connection, says) in [
        ("AccountName=hunter2", "neither an AccountKey nor a SharedAccessSignature"),
        ("AccountName=a;AccountKey=aHVudGVyMg==;QueueEndpoint=http://127.0.0.1:9/a", "cannot be reached"),
    ] {
        world.set(STORAGE, connection);
        let report = Report::of(&world, &[]).await;
        assert_eq!(report.ran.code, 1, "{report:#?}");
        assert!(report.row(WHAT, "failed")["text"].as_str().unwrap().contains(says), "{report:#?}");
    }
}

/// The account's 403, by the credential of the settings: the row has one sentence about what to do.
#[tokio::test]
async fn an_account_that_refuses_says_what_to_do() {
    let mut world = world().await;
    let storage = Storage::default();
    let with_key = connection_string(&storage).await;
    let place = with_key.split("QueueEndpoint=").nth(1).unwrap().to_owned();
    let identity = Vault::start(&[], None).await;
    let to_do = async |world: &World, code: &'static str| {
        storage.refuse_with(code);
        let report = Report::of(world, &[]).await;
        assert_eq!(report.ran.code, 1, "{report:#?}");
        report.ran.has_no([TOKEN]);
        let row = report.row(WHAT, "failed");
        let text = row["text"].as_str().unwrap();
        // Three queues are asked at once: any of them may be the first.
        assert!(text.starts_with("the storage account 127.0.0.1 refused access to queue uplinks"), "{text}");
        assert!(text.ends_with(&format!(" (403, {code})")) && row["kind"] == "queue_unusable", "{row}");
        assert_eq!(report.of_result("failed"), [WHAT], "nothing else is wrong");
        row["toDo"].as_str().unwrap().to_owned()
    };

    world.set(STORAGE, &with_key);
    let check = "check AzureStorageConnectionString (the account's key may have been rotated) and this machine's clock";
    assert_eq!(to_do(&world, "AuthenticationFailed").await, format!("{check}, and look at the account's firewall"));
    assert_eq!(to_do(&world, "AuthorizationFailure").await, format!("look at the account's firewall, then {check}"));
    let said = to_do(&world, "KeyBasedAuthenticationNotPermitted").await;
    let instead = format!("{STORAGE}__queueServiceUri={place} and {STORAGE}__credential=managedidentity");
    assert!(said.starts_with("use an identity") && said.contains(&instead), "{said}");

    world.set(STORAGE, &format!("SharedAccessSignature=sv=1;QueueEndpoint={place}"));
    let said = to_do(&world, "AuthenticationFailed").await;
    assert!(said.starts_with("check AzureStorageConnectionString (its signature may have ended"), "{said}");

    world.unset(STORAGE);
    world.set(&format!("{STORAGE}__queueServiceUri"), &place);
    for (name, value) in identity.identity() {
        world.set(name, value);
    }
    assert_eq!(
        to_do(&world, "AuthorizationPermissionMismatch").await,
        "give the app's identity the role Storage Queue Data Contributor on 127.0.0.1 (it takes up to 10 minutes to take \
         effect), and look at the account's firewall"
    );
}
