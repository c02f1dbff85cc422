//! Tests `polls`.

use serde_json::{Value, json};

use crate::{
    commands::run::{SITE, run, run_failing, run_ok},
    support::World,
};

/// The lines of the table, without its head.
fn table(printed: &str) -> Vec<Vec<&str>> {
    let lines = printed.lines().skip_while(|line| !line.starts_with("TIME ")).skip(1);
    lines.map(|line| line.split_whitespace().collect()).collect()
}

#[tokio::test]
async fn polls_are_listed_newest_first_below_how_the_site_stands() {
    let world = World::with_sites(&[SITE]).await;
    let handler = world.handler().await;
    handler.invoke_ok().await;
    world.add(SITE, [1, 2]).await;
    handler.invoke_ok().await;
    world.backend.put("faults", json!({ "rules": [{ "resource": "histdata", "times": 1, "status": 401 }] })).await;
    handler.invoke_failing().await;

    let printed = run_ok(&world, &["polls", SITE]).await;
    let first = printed.lines().next().unwrap();
    assert!(first.starts_with("Well 7: newest row 2024-03-01T00:02:00Z, ") && first.contains(" ago"), "{printed}");
    assert!(first.contains(", 1 failure, next attempt at 20"), "{printed}");
    let lines = table(&printed);
    let columns: Vec<_> = lines.iter().map(|line| (line[1], line[2], line[4])).collect();
    assert_eq!(columns, [("failed", "0", "401"), ("forwarded", "2", "200"), ("empty", "0", "200")], "{printed}");
    assert!(printed.contains("unauthorized: the backend refused the credentials (401)"), "{printed}");
    assert_eq!(lines[1][5], "2024-03-01T00:02:00Z");

    let ids = async |arguments: &[&str]| -> Vec<String> {
        let printed = run_ok(&world, &[&["polls", SITE, "--json"], arguments].concat()).await;
        let id = |line: &str| serde_json::from_str::<Value>(line).unwrap()["id"].as_str().unwrap().to_owned();
        printed.lines().map(id).collect()
    };
    let all = ids(&[]).await;
    let mut documents: Vec<_> = world.polls(SITE).await;
    documents.reverse();
    assert_eq!(all, documents.iter().map(|poll| poll["id"].as_str().unwrap()).collect::<Vec<_>>());
    assert_eq!(ids(&["--limit=2"]).await, all[..2]);
    assert_eq!(ids(&["--outcome=empty,failed"]).await, [all[0].clone(), all[2].clone()]);
    let middle = documents[1]["PollingTimestamp"].as_str().unwrap();
    assert_eq!(ids(&["--since", middle]).await, all[..2]);
    assert_eq!(ids(&["--until", middle]).await, all[2..]);
    assert_eq!(ids(&["--since=1h"]).await, all);
    let printed = run_ok(&world, &["polls", SITE, "--json", "--outcome=forwarded"]).await;
    let poll: Value = serde_json::from_str(&printed).unwrap();
    assert_eq!(poll["IoTHubMessage"], documents[1]["IoTHubMessage"], "the whole document");

    let ran = run(&world, &["polls", SITE, "--outcome=rejected"]).await;
    assert_eq!((ran.code, ran.said.as_str()), (Some(0), "no polls: none is on record that matches\n"));
    assert!(ran.printed.starts_with("Well 7: newest row") && ran.printed.lines().count() == 1, "{ran:?}");
}

#[tokio::test]
async fn a_site_that_was_never_polled_is_said_with_those_that_are_like_it() {
    let world = World::with_sites(&[SITE, "Tank"]).await;
    let said = run_failing(&world, &["polls", "well 7"], 1).await;
    assert!(said.contains("was never polled, nor was any other of its sites"), "{said}");
    assert!(world.all_documents().await.is_empty(), "nothing is made");
    world.handler().await.invoke_ok().await;
    let said = run_failing(&world, &["polls", "well 7"], 1).await;
    assert_eq!(
        said,
        "error: site \"well 7\" of customer \"Demo Water Utility\" was never polled; similar ones that were: Well 7\n"
    );
    let said = run_failing(&world, &["polls", "Pumpwerk"], 1).await;
    assert!(said.contains("2 others were; none of them is called anything like it"), "{said}");
    let said = run_failing(&world, &["polls", SITE, "--customer=Nobody"], 1).await;
    assert!(said.contains("customer \"Demo Water Utility\" has a site of this name: give --customer"), "{said}");
}

#[tokio::test]
async fn what_is_missing_or_wrong_is_named() {
    let mut world = World::with_sites(&[SITE]).await;
    for arguments in [
        &["polls"][..],
        &["polls", SITE, "--outcome=lost"],
        &["polls", SITE, "--limit=0"],
        &["polls", SITE, "--since=soon"],
    ] {
        run_failing(&world, arguments, 2).await;
    }
    world.unset("Customer_ID");
    let said = run_failing(&world, &["polls", SITE], 2).await;
    assert_eq!(said, "error: no customer: give --customer, or set Customer_ID\n");
    world.unset("M2MDocumentsDBUri");
    let said = run_failing(&world, &["polls", SITE], 2).await;
    assert!(said.starts_with("error: M2MDocumentsDBUri is not set"), "{said}");
}
