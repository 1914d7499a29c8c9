//! Turns by a paused clock.

use std::net::Ipv4Addr;

use super::*;

const HOUR: Duration = Duration::from_hours(1);

fn turns(max_in_flight: usize, max_slice: usize) -> Arc<Turns> {
    Arc::new(Turns::new(TurnLimits { max_in_flight, max_slice, max_wait: HOUR }))
}

fn caller(number: u8) -> Caller {
    Caller::of(Ipv4Addr::new(10, 0, 0, number).into())
}

/// Waits in the background; the turn is passed on once it is there.
fn wait(turns: &Arc<Turns>, number: u8, queries: usize) -> tokio::task::JoinHandle<Option<Turn>> {
    let turns = Arc::clone(turns);
    tokio::spawn(async move { turns.take(caller(number), queries, Instant::now() + HOUR).await })
}

/// Lets every task go on until it waits.
async fn settle() {
    for _ in 0..20 {
        tokio::task::yield_now().await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_turn_is_given_at_once_while_there_is_room() {
    let turns = turns(3, 2);
    let deadline = Instant::now() + HOUR;
    let first = turns.take(caller(1), 2, deadline).await.unwrap();
    let second = turns.take(caller(2), 1, deadline).await.unwrap();
    assert_eq!(turns.counts(), (3, 0));
    let third = wait(&turns, 1, 1);
    settle().await;
    assert_eq!((turns.counts(), third.is_finished()), ((3, 1), false));
    drop(first);
    let third = third.await.unwrap().unwrap();
    assert_eq!(turns.counts(), (2, 0));
    drop(third);
    // A turn for more than ever fits is alone.
    let alone = wait(&turns, 1, 9);
    settle().await;
    assert!(!alone.is_finished());
    drop(second);
    assert!(alone.await.unwrap().is_some());
    assert_eq!(turns.counts(), (0, 0));
}

#[tokio::test(start_paused = true)]
async fn callers_take_turns_however_many_queries_they_have() {
    let turns = turns(1, 1);
    let running = turns.take(caller(9), 1, Instant::now() + HOUR).await.unwrap();
    let (order, mut ended) = tokio::sync::mpsc::channel(100);
    for (number, requests) in [(1, 20), (2, 3), (3, 3)] {
        for _ in 0..requests {
            let (turns, order) = (Arc::clone(&turns), order.clone());
            tokio::spawn(async move {
                let turn = turns.take(caller(number), 1, Instant::now() + HOUR).await;
                order.send(number).await.unwrap();
                drop(turn);
            });
        }
        settle().await;
    }
    drop((running, order));
    let mut seen = Vec::new();
    while let Some(number) = ended.recv().await {
        seen.push(number);
    }
    assert_eq!(seen.len(), 26);
    for others in [2, 3] {
        let last = seen.iter().rposition(|number| *number == others).unwrap();
        assert!(last < 10, "{seen:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn small_requests_get_as_many_queries_as_large_slices() {
    let turns = turns(4, 4);
    let running = turns.take(caller(9), 4, Instant::now() + HOUR).await.unwrap();
    let mut large: VecDeque<_> = (0..5).map(|_| wait(&turns, 1, 4)).collect();
    settle().await;
    let mut small: VecDeque<_> = (0..8).map(|_| wait(&turns, 2, 1)).collect();
    settle().await;
    drop(running);
    // Each line in its turn begins four queries. A turn lasts until its task is awaited here.
    for round in 0..2 {
        settle().await;
        let ready = small.iter().filter(|one| one.is_finished()).count();
        assert_eq!((ready, large[0].is_finished()), (4, false), "round {round}");
        for one in small.drain(..4) {
            drop(one.await.unwrap().unwrap());
        }
        settle().await;
        assert!(large[0].is_finished() && !large[1].is_finished(), "round {round}");
        assert!(!small.iter().any(tokio::task::JoinHandle::is_finished), "round {round}");
        drop(large.pop_front().unwrap().await.unwrap().unwrap());
    }
    settle().await;
    assert_eq!(turns.counts(), (4, 8));
}

#[tokio::test(start_paused = true)]
async fn who_leaves_is_forgotten_and_who_is_late_is_told() {
    let turns = turns(1, 1);
    let running = turns.take(caller(1), 1, Instant::now() + HOUR).await.unwrap();
    let gone = wait(&turns, 1, 1);
    let other = wait(&turns, 2, 1);
    settle().await;
    assert_eq!(turns.counts(), (1, 2));
    gone.abort();
    settle().await;
    assert_eq!(turns.counts(), (1, 1));
    let late = turns.take(caller(3), 1, Instant::now() + Duration::from_secs(1)).await;
    assert!(late.is_none());
    assert_eq!(turns.counts(), (1, 1));
    drop(running);
    assert!(other.await.unwrap().is_some());
    assert_eq!(turns.counts(), (0, 0));
    assert!(turns.lock().lines.is_empty() && turns.lock().order.is_empty());
}

#[tokio::test(start_paused = true)]
async fn waits_are_estimated_from_the_observed_rate() {
    let turns = turns(1, 1);
    assert_eq!(turns.expected_wait(caller(1), 1), Some(Duration::ZERO));
    assert_eq!(turns.refuse(1), 1, "nothing is known yet");
    // Ten queries a second.
    for _ in 0..20 {
        let turn = turns.take(caller(1), 1, Instant::now() + HOUR).await;
        tokio::time::advance(Duration::from_millis(100)).await;
        drop(turn);
    }
    assert!((turns.queries_per_s().unwrap() - 10.0).abs() < 0.1);
    let _running = turns.take(caller(1), 1, Instant::now() + HOUR).await;
    let _waiting: Vec<_> = (0..50).map(|_| wait(&turns, 1, 1)).collect();
    settle().await;
    let own = turns.expected_wait(caller(1), 1).unwrap().as_secs_f64();
    assert!((own - 5.1).abs() < 0.1, "{own}");
    let others = turns.expected_wait(caller(2), 1).unwrap().as_secs_f64();
    assert!((others - 0.2).abs() < 0.01, "{others}");
    let retry_s = turns.refuse(30);
    assert_eq!(retry_s, 9, "51 that are here and 30 that come again");
    assert_eq!(turns.refuse(usize::MAX >> 20), MAX_RETRY_S);
}

#[test]
fn a_network_of_ipv6_is_one_caller() {
    let of = |text: &str| Caller::of(text.parse().unwrap());
    assert_eq!(of("2001:db8::1"), of("2001:db8::ffff:1"));
    assert_ne!(of("2001:db8::1"), of("2001:db8:0:1::1"));
    assert_eq!(of("::ffff:10.0.0.1"), of("10.0.0.1"));
    assert_ne!(of("10.0.0.2"), of("10.0.0.1"));
}
