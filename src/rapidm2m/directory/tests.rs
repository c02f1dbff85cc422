use super::*;

fn list(sites: &[(&str, &str)]) -> Vec<Listed> {
    let sites: Vec<_> =
        sites.iter().map(|(uid, name)| serde_json::json!({"_uid": uid, "name": name, "site_id": name})).collect();
    serde_json::from_value(sites.into()).unwrap()
}

fn known(place: &str, uid: Option<&str>, name: &str) -> Known {
    Known { place: place.into(), uid: uid.map(Into::into), name: name.into(), ..Known::default() }
}

fn directory(known: impl IntoIterator<Item = Known>) -> Directory {
    Directory::new("c", known)
}

/// Place, name and path of each site.
fn told(sites: &[Site]) -> Vec<(&str, &str, &str)> {
    sites.iter().map(|site| (site.key.site.as_str(), site.name.as_str(), site.path())).collect()
}

fn names(names: &[&str]) -> Vec<String> {
    names.iter().map(|name| (*name).to_owned()).collect()
}

#[test]
fn new_sites_have_their_documents_at_their_name_unless_it_is_taken() {
    let list = list(&[("A1", "Well"), ("A2", "Well"), ("A3", "Tank"), ("A4", "")]);
    let expected = [("A1", "A1", "A1"), ("A2", "A2", "A2"), ("Tank", "Tank", "A3"), ("A4", "A4", "A4")];
    assert_eq!(told(&directory([]).all(&list)), expected);
    let text =
        r#"[{"_uid":"A1","name":".."},{"_uid":"..","name":"."},{"name":"Well","site_id":"w"},{"site_id":"s5"},{}]"#;
    let odd: Vec<Listed> = serde_json::from_str(text).unwrap();
    let expected = [("A1", "A1", "A1"), ("Well", "Well", "Well"), ("s5", "s5", "s5")];
    assert_eq!(told(&directory([]).all(&odd)), expected, "what would change a path is not a name");
}

#[test]
fn a_renamed_site_goes_on_where_it_was_and_a_namesake_changes_nothing() {
    let mut directory = directory([known("Well", Some("A1"), "Well")]);
    let renamed = directory.all(&list(&[("A1", "Shaft")]));
    assert_eq!(told(&renamed), [("Well", "Shaft", "A1")]);

    let namesake = directory.all(&list(&[("A1", "Well"), ("A2", "Well")]));
    assert_eq!(told(&namesake), [("Well", "Well", "A1"), ("A2", "A2", "A2")]);

    directory.learn(&renamed[0], 0);
    let taken = directory.all(&list(&[("A2", "Well"), ("A1", "Shaft")]));
    assert_eq!(told(&taken), [("A2", "Well", "A2"), ("Well", "Shaft", "A1")]);
}

#[test]
fn cursors_without_uid_are_taken_over() {
    let old = directory([known("Well", None, "Well"), known("A2", None, "A2"), known("A3", None, "A3")]);
    let sites = old.all(&list(&[("A1", "Well"), ("A2", "Twin"), ("A3", "Twin"), ("A4", "New")]));
    let expected = [("Well", "Well", "A1"), ("A2", "A2", "A2"), ("A3", "A3", "A3"), ("New", "New", "A4")];
    assert_eq!(told(&sites), expected);
    assert_eq!(told(&old.named(&names(&["well"]), &list(&[("A1", "WELL")])).sites), [("well", "WELL", "A1")]);
    let lower = directory([known("well", None, "well")]);
    assert_eq!(told(&lower.named(&names(&["well"]), &list(&[("A1", "Well")])).sites), [("well", "Well", "A1")]);
}

#[test]
fn names_are_resolved() {
    let list = list(&[("A1", "Well"), ("A2", "Tank"), ("A3", "Twin"), ("A4", "Twin")]);
    let Resolved { sites, remarks } = directory([]).named(&names(&["Well", "A2", "Twin", "Gone", "Well"]), &list);
    let expected = [("Well", "Well", "A1"), ("Tank", "A2", "A2"), ("Twin", "Twin", "Twin"), ("Gone", "Gone", "Gone")];
    assert_eq!(told(&sites), expected);
    assert!(remarks.is_empty());
    assert_eq!(told(&directory([]).named(&names(&["Well"]), &[]).sites), [("Well", "Well", "Well")]);
}

#[test]
fn a_name_of_the_settings_goes_on_to_mean_the_site_that_it_meant() {
    let mut directory = directory([known("Well", Some("A1"), "Well")]);
    let wanted = names(&["Well"]);
    for (list, expected, remark) in [
        (list(&[("A1", "Well"), ("A2", "Well")]), vec![("Well", "Well", "A1")], ""),
        (list(&[("A1", "Shaft")]), vec![("Well", "Shaft", "A1")], "called \"Shaft\" now. It is polled all the same"),
        (
            list(&[("A1", "Pit"), ("A2", "Well")]),
            vec![("A2", "Well", "A2"), ("Well", "Pit", "A1")],
            "that of \"Pit\" is A1",
        ),
        (Vec::new(), vec![("Well", "Well", "A1")], ""),
        (list(&[("A2", "Well")]), vec![("A2", "Well", "A2")], ""),
    ] {
        let resolved = directory.named(&wanted, &list);
        assert_eq!(told(&resolved.sites), expected, "{list:?}");
        assert_eq!(resolved.remarks.is_empty(), remark.is_empty(), "{:?}", resolved.remarks);
        assert!(resolved.remarks.iter().all(|text| text.contains(remark)), "{:?}", resolved.remarks);
        resolved.sites.iter().for_each(|site| directory.learn(site, 0));
    }
}

#[test]
fn a_name_that_the_settings_learned_late_is_remembered_over_a_second_rename() {
    let mut directory = directory([known("Well", Some("A1"), "Well")]);
    for name in ["Shaft", "Pit"] {
        let sites = directory.named(&names(&["Shaft"]), &list(&[("A1", name)])).sites;
        assert_eq!(told(&sites), [("Well", name, "A1")]);
        directory.learn(&sites[0], 0);
    }
    assert_eq!(told(&directory.named(&names(&["Shaft"]), &list(&[("A1", "Pit")])).sites), [("Well", "Pit", "A1")]);
    assert_eq!(directory.find("Shaft"), directory.find("A1"));
}

#[test]
fn what_is_not_polled_any_more_is_found() {
    let mut directory = directory([
        Known { waiting: 2, ..known("Well", Some("A1"), "Well") },
        known("Tank", Some("A2"), "Tank"),
        Known { is_gone: true, ..known("Old", Some("A3"), "Old") },
    ]);
    let polled = directory.all(&list(&[("A4", "New")]));
    let places = |known: Vec<&Known>| known.iter().map(|known| known.place.clone()).collect::<Vec<_>>();
    assert_eq!(places(directory.orphans(&polled)), ["Well"]);
    assert_eq!((places(directory.missing(&polled)), directory.count()), (names(&["Tank", "Well"]), 2));
    directory.set_waiting("Well", 0);
    directory.set_gone("Well");
    assert!(directory.orphans(&polled).is_empty() && places(directory.missing(&polled)) == ["Tank"]);
    let back = directory.all(&list(&[("A3", "Old")]));
    directory.learn(&back[0], 0);
    assert_eq!(directory.count(), 2);
}
