use secrecy::{ExposeSecret as _, SecretBox};

use super::*;
use crate::iot_hub::devices::enrollment::Enrollment;

const KEY: &str = "c2VjcmV0";
const HUB: &str = "HostName=h.azure-devices.net;SharedAccessKeyName=device;SharedAccessKey=c2VjcmV0";

type Pairs<'a> = &'a [(&'a str, &'a str)];

fn read(pairs: Pairs<'_>) -> (Option<Enrollments>, String) {
    let mut problems = Problems::default();
    let enrollments = super::read(&pairs.iter().copied().collect(), &mut problems);
    (enrollments, if problems.is_empty() { String::new() } else { problems.to_string() })
}

fn good(pairs: Pairs<'_>) -> Enrollments {
    let (enrollments, problems) = read(pairs);
    enrollments.unwrap_or_else(|| panic!("{problems}"))
}

/// ID scope and group key, or hub and policy key, and the port.
fn found(enrollments: &Enrollments, application: &str, port: u8) -> Option<(String, Option<u8>)> {
    let text = |key: &SecretBox<Vec<u8>>| String::from_utf8(key.expose_secret().clone()).unwrap();
    enrollments.of(application, port).map(|(enrollment, port)| match enrollment {
        Enrollment::Dps(dps) => (format!("{} {}", dps.id_scope, text(&dps.group_key)), port),
        Enrollment::Hub(hub) => (format!("{} {}", hub.hub, text(&hub.policy.key)), port),
    })
}

fn some(text: &str, port: Option<u8>) -> Option<(String, Option<u8>)> {
    Some((text.to_owned(), port))
}

#[test]
fn the_most_specific_suffix_wins() {
    let enrollments = good(&[
        ("DPSIDScopeDefault", "scope0"),
        ("DPSEnrollmentGroupSymmetricKeyDefault", "a2V5MA=="),
        ("DPSIDScope-pumps", "scope1"),
        ("DPSEnrollmentGroupSymmetricKey-pumps", "a2V5MQ=="),
        ("DPSIDScope-pumps-10", "scope2"),
        ("DPSEnrollmentGroupSymmetricKey-pumps-10", "a2V5Mg=="),
        ("AzureIotHubConnectionString-pumps-11", HUB),
        ("AzureIotHubConnectionString-old", HUB),
    ]);
    for (application, port, expected) in [
        ("wells", 10, some("scope0 key0", None)),
        ("pumps", 1, some("scope1 key1", None)),
        ("pumps", 10, some("scope2 key2", Some(10))),
        ("pumps", 11, some("h.azure-devices.net secret", Some(11))),
        ("old", 0, some("h.azure-devices.net secret", None)),
        ("Pumps", 10, some("scope0 key0", None)),
    ] {
        assert_eq!(found(&enrollments, application, port), expected, "{application} {port}");
    }
    assert_eq!(enrollments.iter().count(), 4);
    let names = enrollments.map(|enrollment| matches!(enrollment, Enrollment::Hub(_)));
    assert_eq!(names.of("pumps", 11), Some((&true, Some(11))));
}

#[test]
fn scope_and_key_fall_back_separately() {
    let enrollments = good(&[
        ("DPSIDScopeDefault", "scope0"),
        ("DPSEnrollmentGroupSymmetricKey-pumps", "a2V5MQ=="),
        ("DPSEnrollmentGroupSymmetricKey-pumps-2", "a2V5Mg=="),
        ("DPSIDScope-wells", "scope3"),
        ("DPSEnrollmentGroupSymmetricKey-wells-2", "a2V5NA=="),
    ]);
    assert_eq!(found(&enrollments, "pumps", 1), some("scope0 key1", None));
    assert_eq!(found(&enrollments, "pumps", 2), some("scope0 key2", Some(2)));
    assert_eq!(found(&enrollments, "wells", 2), some("scope3 key4", Some(2)));
    assert_eq!(found(&enrollments, "wells", 1), None, "a scope alone is nothing");
    assert_eq!(found(&enrollments, "others", 1), None);
}

#[test]
fn a_port_that_gets_what_its_application_gets_is_not_special() {
    let enrollments = good(&[
        ("DPSIDScope", "scope0"),
        ("DPSEnrollmentGroupSymmetricKey", KEY),
        ("DPSEnrollmentGroupSymmetricKey-pumps", KEY),
        ("DPSEnrollmentGroupSymmetricKey-pumps-2", KEY),
    ]);
    assert_eq!(found(&enrollments, "pumps", 2), some("scope0 secret", None));
    assert_eq!(enrollments.iter().count(), 1, "what is the same is there once");
}

#[test]
fn names_can_be_spelt_without_a_hyphen() {
    let enrollments = good(&[
        ("DPSIDScope", "scope0"),
        ("DPSEnrollmentGroupSymmetricKey__my__app", "a2V5MQ=="),
        ("DPSEnrollmentGroupSymmetricKey__my__app__10", "a2V5Mg=="),
        ("DPSEnrollmentGroupSymmetricKey-my__app-10", "a2V5Mg=="),
        ("AzureIoTHubConnectionString-other", HUB),
    ]);
    assert_eq!(found(&enrollments, "my-app", 1), some("scope0 key1", None));
    assert_eq!(found(&enrollments, "my-app", 10), some("scope0 key2", Some(10)));
    assert_eq!(found(&enrollments, "other", 10), some("h.azure-devices.net secret", None));
}

#[test]
fn what_looks_like_a_port_may_be_an_applications_name() {
    let enrollments = good(&[
        ("DPSIDScope-pumps", "scope1"),
        ("DPSIDScopeDefault", "scope0"),
        ("DPSEnrollmentGroupSymmetricKey-pumps-1", "a2V5MQ=="),
        ("DPSEnrollmentGroupSymmetricKey-wells-256", "a2V5Mg=="),
    ]);
    assert_eq!(found(&enrollments, "pumps", 1), some("scope1 key1", Some(1)));
    assert_eq!(found(&enrollments, "pumps-1", 7), some("scope0 key1", None));
    assert_eq!(found(&enrollments, "wells-256", 7), some("scope0 key2", None));
    assert_eq!(found(&enrollments, "wells", 0), None);
}

#[test]
fn faults_are_named_all_at_once_and_without_secrets() {
    let scope = ("DPSIDScopeDefault", "scope0");
    let key = ("DPSEnrollmentGroupSymmetricKeyDefault", KEY);
    let cases: &[(Pairs<'_>, &[&str])] = &[
        (
            &[],
            &[
                "DPSIDScopeDefault is not set",
                "DPSEnrollmentGroupSymmetricKeyDefault, or AzureIotHubConnectionStringDefault",
            ],
        ),
        (
            &[scope],
            &["DPSIDScopeDefault is set, but no group key goes with it: set DPSEnrollmentGroupSymmetricKeyDefault, or"],
        ),
        (
            &[key],
            &["DPSEnrollmentGroupSymmetricKeyDefault is set, but no ID scope goes with it: set DPSIDScopeDefault, or"],
        ),
        (
            &[("AzureIotHubConnectionStringDefault", HUB), ("DPSIDScope__a", "scope1")],
            &["DPSIDScope__a is set, but no group key goes with it: set DPSEnrollmentGroupSymmetricKey__a or "],
        ),
        (
            &[scope, key, ("AzureIotHubConnectionString", HUB)],
            &["AzureIotHubConnectionString is set beside DPSIDScopeDefault"],
        ),
        (
            &[scope, ("DPSEnrollmentGroupSymmetricKey__a", KEY), ("AzureIotHubConnectionString-a", HUB)],
            &["AzureIotHubConnectionString-a is set beside DPSEnrollmentGroupSymmetricKey__a"],
        ),
        (
            &[scope, key, ("DPSIDScope-a-1", "scope1"), ("DPSIDScope__a__1", "scope2")],
            &["DPSIDScope-a-1 and DPSIDScope__a__1 are both set and differ"],
        ),
        (&[key, ("DPSIDScope", "a"), scope], &["DPSIDScope and DPSIDScopeDefault are both set and differ"]),
        (
            &[scope, key, ("DPSIDScopeA", "x"), ("DPSIDScope-", "x")],
            &["DPSIDScopeA is not a setting", "DPSIDScope- is no"],
        ),
        (
            &[("DPSIDScope", "hunter2=="), ("DPSEnrollmentGroupSymmetricKey-a", "hunter2!"), ("DPSIDScope-b", " ")],
            &[
                "DPSIDScope is not an ID scope",
                "DPSEnrollmentGroupSymmetricKey-a is not Base64",
                "DPSIDScope-b is set but empty",
            ],
        ),
        (
            &[("AzureIotHubConnectionString-a", "HostName=h.net;DeviceId=d;SharedAccessKey=hunter2")],
            &["AzureIotHubConnectionString-a is one device's connection string"],
        ),
        (&[scope, key, ("DPSGlobalDeviceEndpoint", "dps")], &["DPSGlobalDeviceEndpoint is not a full host name"]),
    ];
    for (pairs, expected) in cases {
        let (enrollments, text) = read(pairs);
        assert!(enrollments.is_none() && !text.contains("hunter2"), "{pairs:?}: {text}");
        for expected in *expected {
            assert!(text.contains(expected), "{expected:?} is missing in {text:?}");
        }
        assert!(text.starts_with("error: "), "{text}");
    }
}

#[test]
fn a_wrong_half_is_not_also_a_missing_one() {
    let (_, text) = read(&[("DPSIDScopeDefault", "?"), ("DPSEnrollmentGroupSymmetricKey-a", KEY)]);
    assert!(text.starts_with("error: DPSIDScopeDefault is not an ID scope") && text.lines().count() == 1, "{text}");
}
