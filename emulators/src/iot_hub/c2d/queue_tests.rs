use super::*;

fn queue_of(messages: usize) -> Queue {
    let mut queue = Queue::default();
    for _ in 0..messages {
        queue.enqueue(Message::default()).unwrap();
    }
    queue
}

fn stages(queue: &Queue) -> Vec<Stage> {
    queue.statuses().iter().map(|status| status.state).collect()
}

#[test]
fn fifty_messages_wait_and_no_more() {
    let mut queue = queue_of(MAX_WAITING);
    assert_eq!(queue.enqueue(Message::default()), Err(Full));
    let token = queue.lock(None).unwrap().token;
    assert_eq!(queue.enqueue(Message::default()), Err(Full), "a locked message still counts");
    queue.settle(&token, Outcome::Complete).unwrap();
    queue.enqueue(Message::default()).unwrap();
}

#[test]
fn a_lock_is_used_once() {
    for (outcome, stage) in
        [(Outcome::Complete, Stage::Completed), (Outcome::Reject, Stage::Rejected), (Outcome::Abandon, Stage::Enqueued)]
    {
        let mut queue = queue_of(2);
        let first = queue.lock(None).unwrap();
        assert_eq!((first.sequence, first.delivery_count), (1, 1));
        assert_eq!(stages(&queue), [Stage::Locked, Stage::Enqueued]);
        queue.settle(&first.token, outcome).unwrap();
        assert_eq!(queue.settle(&first.token, outcome), Err(LockLost));
        assert_eq!(stages(&queue), [stage, Stage::Enqueued]);
    }
}

#[test]
fn a_lock_ends_after_a_minute_and_the_message_comes_again_first() {
    let mut queue = queue_of(2);
    let start = queue.now;
    let first = queue.lock(None).unwrap();
    assert_eq!(queue.next_due(), Some(start + LOCK));
    queue.advance(start + LOCK - Duration::from_millis(1));
    assert_eq!(queue.lock(None).unwrap().sequence, 2);
    assert!(queue.lock(None).is_none());
    queue.advance(start + LOCK);
    assert_eq!(queue.settle(&first.token, Outcome::Complete), Err(LockLost));
    let again = queue.lock(None).unwrap();
    assert_eq!((again.sequence, again.delivery_count), (1, 2));
    assert_ne!(again.token, first.token);
}

#[test]
fn what_waits_too_long_expires_unless_it_is_locked() {
    let mut queue = Queue::default();
    let start = queue.now;
    let message = |seconds| Message { ttl: Some(Duration::from_secs(seconds)), ..Message::default() };
    queue.enqueue(message(5)).unwrap();
    queue.enqueue(message(5)).unwrap();
    queue.enqueue(Message::default()).unwrap();
    queue.lock(None).unwrap();
    queue.advance(start + Duration::from_secs(5));
    assert_eq!(stages(&queue), [Stage::Locked, Stage::Expired, Stage::Enqueued]);
    queue.advance(start + LOCK);
    assert_eq!(stages(&queue), [Stage::Expired, Stage::Expired, Stage::Enqueued]);
    assert_eq!(queue.next_due(), Some(start + DEFAULT_TTL));
    queue.advance(start + DEFAULT_TTL);
    assert_eq!((queue.count(Stage::Expired), queue.next_due()), (3, None));
}

#[test]
fn ten_deliveries_are_enough() {
    let mut queue = queue_of(1);
    for count in 1..=MAX_DELIVERIES {
        let delivery = queue.lock(None).unwrap();
        assert_eq!(delivery.delivery_count, count);
        queue.settle(&delivery.token, Outcome::Abandon).unwrap();
    }
    assert!(queue.lock(None).is_none());
    let status = &queue.statuses()[0];
    assert_eq!((status.state, status.delivery_count, status.abandoned_count), (Stage::DeadLettered, 10, 10));
}

#[test]
fn mqtt_keeps_its_packet_ids_across_connections() {
    let mut queue = queue_of(3);
    let [first, second] = [queue.lock(Some(7)).unwrap(), queue.lock(Some(7)).unwrap()];
    assert_eq!([first.packet_id, second.packet_id, queue.in_flight(7) as u16], [1, 2, 2]);
    assert!(!first.dup && !second.dup);
    assert_eq!(queue.acknowledge(1, 8), Err(LockLost), "another connection's");
    queue.acknowledge(1, 7).unwrap();
    assert_eq!(queue.acknowledge(1, 7), Err(LockLost));
    queue.release(8);
    assert_eq!(queue.in_flight(7), 1);
    queue.release(7);
    let [again, third] = [queue.lock(Some(8)).unwrap(), queue.lock(Some(8)).unwrap()];
    assert_eq!((again.packet_id, again.dup, again.delivery_count), (2, true, 2));
    assert_eq!((third.packet_id, third.dup), (1, false), "a free id is used again");
    queue.release(8);
    queue.forget_packet_ids();
    let anew = queue.lock(Some(9)).unwrap();
    assert_eq!((anew.packet_id, anew.dup, anew.sequence), (1, false, 2));
    queue.drop_waiting();
    assert_eq!(stages(&queue), [Stage::Completed, Stage::Dropped, Stage::Dropped]);
}

#[test]
fn the_control_endpoint_can_end_locks() {
    let mut queue = queue_of(2);
    queue.lock(None).unwrap();
    queue.lock(Some(1)).unwrap();
    assert_eq!((queue.unlock_all(), queue.unlock_all()), (2, 0));
    assert_eq!(stages(&queue), [Stage::Enqueued, Stage::Enqueued]);
}

#[test]
fn only_so_much_history_is_kept() {
    let mut queue = Queue::default();
    for _ in 0..MAX_FINISHED + 10 {
        queue.enqueue(Message::default()).unwrap();
        let token = queue.lock(None).unwrap().token;
        queue.settle(&token, Outcome::Complete).unwrap();
    }
    queue.enqueue(Message::default()).unwrap();
    queue.advance(queue.now);
    assert_eq!((queue.count(Stage::Completed), queue.count(Stage::Enqueued)), (MAX_FINISHED, 1));
    assert_eq!(queue.statuses()[0].sequence_number, 11);
}

#[test]
fn looking_changes_nothing() {
    let mut queue = queue_of(1);
    let version = queue.version();
    queue.advance(queue.now);
    queue.statuses();
    queue.release(1);
    assert_eq!(queue.version(), version);
    queue.lock(None).unwrap();
    assert_ne!(queue.version(), version);
}
