use super::*;

fn hub() -> Arc<Hub> {
    Arc::new(Hub::for_tests(Log::new(10, 1000)))
}

fn login(device_id: &str) -> Login {
    Login { device_id: device_id.into(), expiry: 0, signature: device_id.into() }
}

#[test]
fn a_session_outlives_its_connection_only_if_it_is_not_clean() {
    let hub = hub();
    let mut present = vec![];
    for clean in [false, false, true, false, false, true, true] {
        present.push(hub.enter(login("d"), clean).0.session_present);
    }
    assert_eq!(present, [false, true, false, false, true, false, false]);
    hub.faults().no_session_present = true;
    hub.enter(login("d"), false);
    assert!(!hub.enter(login("d"), false).0.session_present);
    hub.faults().no_session_present = false;
    assert!(hub.enter(login("d"), false).0.session_present);
}

#[test]
fn the_newer_connection_stays() {
    let hub = hub();
    let (older, mut kicked) = hub.enter(login("d"), false);
    let (newer, mut not_kicked) = hub.enter(login("d"), false);
    assert_eq!(kicked.try_recv(), Ok(Kick::TakenOver));
    drop(older);
    assert!(hub.counts.borrow().connected.contains("d"));
    assert!(not_kicked.try_recv().is_err());
    drop(newer);
    let counts = hub.counts.borrow();
    assert!(counts.connected.is_empty());
    assert_eq!((counts.connects, counts.disconnects, counts.per_device["d"].connects), (2, 2, 2));
}

#[test]
fn expired_tokens_are_remembered_if_asked() {
    let hub = hub();
    for refuse in [false, true] {
        let (_presence, mut kicked) = hub.enter(login("d"), true);
        assert_eq!(hub.expire(refuse), 1);
        assert_eq!(kicked.try_recv(), Ok(Kick::TokenExpired));
        assert_eq!(hub.is_expired(b"d"), refuse);
    }
}

#[test]
fn a_device_that_is_shown_out_leaves_nothing_behind() {
    let hub = hub();
    let (presence, mut kicked) = hub.enter(login("d"), false);
    hub.show_out("d", true);
    hub.show_out("e", true);
    assert_eq!(kicked.try_recv(), Ok(Kick::NotWelcome));
    drop(presence);
    assert!(!hub.enter(login("d"), false).0.session_present);
    assert_eq!(hub.counts.borrow().disconnects, 2);
}

#[test]
fn a_sixth_subscription_is_too_many() {
    let (presence, _kicked) = hub().enter(login("d"), true);
    let subscribe = |filter| presence.subscribe([(filter, Qos::AtMostOnce)].into_iter());
    for filter in ["1", "2", "3", "4", "5", "5"] {
        subscribe(filter).unwrap();
    }
    presence.unsubscribe(["1"].into_iter());
    subscribe("6").unwrap();
    assert_eq!((presence.granted("1"), presence.granted("6")), (None, Some(Qos::AtMostOnce)));
    assert!(subscribe("7").is_err());
}
