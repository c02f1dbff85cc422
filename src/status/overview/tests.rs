use super::*;
use crate::rapidm2m::ledger::SiteKey;
use crate::support::kind::Kind;

fn now() -> DateTime<Utc> {
    DateTime::from_timestamp(1_767_225_600, 0).unwrap()
}

fn cursor(site: &str) -> Cursor {
    let mut cursor = Cursor::new(&SiteKey { customer: "c".into(), site: site.into() });
    (cursor.scanned_until, cursor.last_value_from) = (Some(now()), Some(now() - TimeDelta::hours(1)));
    let activity = cursor.activity.get_or_insert_default();
    (activity.polled_at, activity.polls) = (now(), "e".into());
    cursor
}

fn fault() -> Option<Fault> {
    Some(Fault { kind: Kind::Timeout, text: "t".into() })
}

fn scope(selection: Selection) -> Scope {
    Scope { rapidm2m: Some(("c".into(), selection)), has_things_network: false, records_empty_polls: true }
}

fn states(cursors: Vec<Cursor>, selection: Selection) -> (Vec<(String, State)>, Vec<String>) {
    let overview = Overview::new(cursors, Vec::new(), &scope(selection), now());
    (overview.items.iter().map(|item| (item.name.clone(), item.state)).collect(), overview.notes)
}

#[test]
fn trouble_comes_first_and_what_is_well_by_name() {
    let make = |site: &str, change: fn(&mut Cursor)| {
        let mut cursor = cursor(site);
        change(&mut cursor);
        cursor
    };
    let cursors = vec![
        make("well b", |_| {}),
        make("Well a", |cursor| cursor.last_value_from = Some(now())),
        make("gone", |cursor| cursor.last_value_from = Some(now() - TimeDelta::hours(25))),
        make("empty", |cursor| cursor.last_value_from = None),
        make("new", |cursor| (cursor.last_value_from, cursor.scanned_until) = (None, None)),
        make("waits", |cursor| cursor.unforwarded = vec!["1".to_owned()].into()),
        make("refused", |cursor| {
            cursor.unforwarded = vec!["1".to_owned()].into();
            cursor.activity.as_mut().unwrap().hub_error = fault();
        }),
        make("was refused", |cursor| cursor.activity.as_mut().unwrap().hub_error = fault()),
        make("full", |cursor| cursor.unforwarded = vec!["1".to_owned(); MAX_UNFORWARDED].into()),
        make("fails", |cursor| (cursor.consecutive_failures, cursor.last_error) = (1, fault())),
    ];
    let (found, notes) = states(cursors, Selection::All);
    let names: Vec<_> = found.iter().map(|(name, _)| name.as_str()).collect();
    let expected = ["fails", "full", "refused", "waits", "empty", "gone", "new", "was refused", "Well a", "well b"];
    assert_eq!(names, expected);
    let of = |name: &str| found.iter().find(|(other, _)| other == name).unwrap().1;
    assert_eq!(["full", "waits", "gone", "new"].map(of), [State::Failing, State::Waiting, State::Silent, State::Never]);
    assert!(notes.is_empty(), "{notes:?}");
}

#[test]
fn only_what_the_settings_ask_for_is_shown_and_all_of_it() {
    let mut listing = cursor(ALL_SITES);
    listing.last_error = fault();
    let mut foreign = cursor("other customer's");
    foreign.customer = "d".into();
    let cursors = vec![cursor("old"), cursor("a"), foreign, listing];
    let (found, notes) = states(cursors.clone(), Selection::Named(vec!["a".into(), "b".into()]));
    assert_eq!(found, [("b".to_owned(), State::Never), ("a".to_owned(), State::Ok)]);
    assert!(notes.iter().any(|note| note.starts_with("2 more sites")), "{notes:?}");
    let overview = Overview::new(cursors, Vec::new(), &scope(Selection::All), now());
    assert_eq!(overview.items.len(), 2);
    assert_eq!(overview.unlisted.map(|failure| failure.fault), fault());
}

#[test]
fn a_site_that_is_gone_is_shown_until_nothing_of_it_waits() {
    let mut gone = cursor("gone");
    (gone.gone_since, gone.unforwarded) = (Some(now()), vec!["1".to_owned()].into());
    assert_eq!(states(vec![gone.clone()], Selection::All).0, [("gone".to_owned(), State::Waiting)]);
    let other = Selection::Named(vec!["other".into()]);
    assert!(states(vec![gone.clone()], other).0.contains(&("gone".to_owned(), State::Waiting)));
    gone.unforwarded = Vec::new().into();
    let (found, notes) = states(vec![gone], Selection::All);
    assert!(found.is_empty() && notes[0].starts_with("1 more sites"), "{notes:?}");
}

#[test]
fn a_renamed_site_is_shown_by_its_name_and_found_by_all_that_it_is_called() {
    let mut renamed = cursor("Well");
    (renamed.site_name, renamed.site_uid) = (Some("Shaft".into()), Some("A1".into()));
    for name in ["Well", "Shaft", "A1"] {
        let overview =
            Overview::new(vec![renamed.clone()], Vec::new(), &scope(Selection::Named(vec![name.into()])), now());
        let wanted = Wanted { system: Owner::RAPIDM2M, group: Some("c".into()), name: name.into() };
        assert_eq!(overview.items.len(), 1, "{name}");
        let item = overview.find(&wanted).unwrap();
        assert_eq!((item.name.as_str(), item.document(now())["Site_Id"].as_str()), ("Shaft", Some("Well")));
    }
}

#[test]
fn one_is_silent_after_several_of_its_own_intervals() {
    let state = |active: &[i64], newest: i64| {
        let mut cursor = cursor("a");
        cursor.last_value_from = Some(now() - TimeDelta::hours(newest));
        let rows = &mut cursor.activity.as_mut().unwrap().rows;
        active.iter().for_each(|hour| rows.add(now() - TimeDelta::hours(*hour), 1));
        states(vec![cursor], Selection::All).0[0].1
    };
    assert_eq!((state(&[9, 8, 7, 6, 5, 4], 3), state(&[9, 8, 7, 6, 5, 4], 4)), (State::Ok, State::Silent), "each hour");
    assert_eq!(
        (state(&[26, 25, 12, 11], 14), state(&[26, 25, 12, 11], 15)),
        (State::Ok, State::Silent),
        "at rest by night"
    );
    assert_eq!((state(&[48, 24], 72), state(&[48, 24], 73)), (State::Ok, State::Silent), "once a day");
}

#[test]
fn a_cause_for_which_the_sites_are_not_listed_is_told_once() {
    let failing = |site: &str| {
        let mut cursor = cursor(site);
        (cursor.consecutive_failures, cursor.last_error) = (1, fault());
        cursor
    };
    let causes = |cursors| Overview::new(cursors, Vec::new(), &scope(Selection::All), now()).causes.len();
    assert_eq!(causes(vec![failing("a"), failing("b")]), 1);
    assert_eq!(causes(vec![failing("a"), failing("b"), failing(ALL_SITES)]), 0);
}

#[test]
fn the_numbers_say_what_waits() {
    let mut cursors = vec![cursor("a"), cursor("b"), cursor("c")];
    cursors[0].unforwarded = vec!["1".to_owned(), "2".to_owned()].into();
    cursors[1].unforwarded = vec!["3".to_owned()].into();
    assert_eq!(Overview::new(cursors, Vec::new(), &scope(Selection::All), now()).waiting(), (3, 2));
}

#[test]
fn a_timer_that_does_not_run_is_told() {
    let mut cursor = cursor("a");
    cursor.activity.as_mut().unwrap().polled_at = now() - TimeDelta::minutes(16);
    let (_, notes) = states(vec![cursor.clone()], Selection::All);
    assert!(notes[0].contains("16 minutes"), "{notes:?}");
    let quiet = Scope { records_empty_polls: false, ..scope(Selection::All) };
    assert!(Overview::new(vec![cursor], Vec::new(), &quiet, now()).notes.is_empty());
}

#[test]
fn the_list_can_be_narrowed_to_a_system_a_customer_or_an_application() {
    let device = |of: &str, name: &str| activity::Document::new((&Owner::things_network(of, name, name)).into());
    let devices = vec![device("pumps", "p"), device("c", "q")];
    let overview = Overview::new(vec![cursor("s")], devices, &scope(Selection::All), now());
    let names = |system, group: Option<&str>| {
        let within = Some(Within { system, group: group.map(str::to_owned) });
        assert_eq!(overview.counts(within.as_ref()).values().sum::<usize>(), if group.is_none() { 2 } else { 1 });
        let query = Query { within, limit: 50, ..Query::default() };
        overview.select(&query).items.iter().map(|item| item.name.clone()).collect::<Vec<_>>()
    };
    assert_eq!(names(Owner::RAPIDM2M, Some("c")), ["s"]);
    assert_eq!(names(Owner::THINGS_NETWORK, Some("c")), ["q"]);
    assert_eq!(names(Owner::THINGS_NETWORK, None), ["q", "p"]);
    assert_eq!(overview.groups().len(), 3);
}

#[test]
fn the_list_can_be_searched_and_sorted() {
    let mut cursors = vec![cursor("Älpli"), cursor("b"), cursor("C")];
    cursors[2].last_value_from = Some(now() - TimeDelta::hours(2));
    let overview = Overview::new(cursors, Vec::new(), &scope(Selection::All), now());
    let names =
        |query: &Query| -> Vec<_> { overview.select(query).items.iter().map(|item| item.name.clone()).collect() };
    let query = Query { limit: 50, ..Query::default() };
    assert_eq!(names(&Query { search: "älp".into(), ..query.clone() }), ["Älpli"]);
    assert_eq!(names(&Query { sort: Sort::Lag, ..query.clone() })[0], "C");
    assert_eq!(names(&Query { sort: Sort::Name, from: 1, limit: 1, ..query.clone() }), ["C"]);
    assert_eq!(names(&Query { state: Some(State::Failing), ..query }), Vec::<String>::new());
}
