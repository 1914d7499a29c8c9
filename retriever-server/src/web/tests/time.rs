//! Cases in which time matters, under paused time.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use tokio::time::{Instant, advance};

use super::fake::{Act, Fake};
use super::{DEADLINE, TIMEOUT, ask, found, over, over_memory, settings, settings_of, titles};
use crate::upstream::exchange::Exchange;
use crate::web::budget::DailyLimit;
use crate::web::provider::Provider;
use crate::web::providers::{PROVIDERS, named};
use crate::web::result::WebFault;
use crate::web::search::WebSearch;

/// Checks that every provider answers after the acts of `before`, within the range of seconds.
async fn check(before: &[Act], seconds: std::ops::Range<f64>) {
    for provider in PROVIDERS {
        let mut script = before.to_vec();
        script.push(found(provider));
        let (search, fake) = over_memory(provider, &script);
        let start = Instant::now();
        let outcome = ask(&search, "one").await;
        assert_eq!(titles(&outcome), ["Lima", "Quito"], "{} {outcome:?}", provider.name);
        assert_eq!(fake.calls(), script.len(), "{}", provider.name);
        let elapsed = start.elapsed().as_secs_f64();
        assert!(seconds.contains(&elapsed), "{} {elapsed}", provider.name);
    }
}

fn busy() -> Act {
    Act::bytes(429, r#"{"error": "too many requests"}"#)
}

#[tokio::test(start_paused = true)]
async fn a_silent_provider_is_tried_again_after_the_time_limit() {
    let limit = TIMEOUT.as_secs_f64();
    check(&[Act::Silent], limit..limit + 1.0).await;
    check(&[Act::Stall], limit..limit + 1.0).await;
}

#[tokio::test(start_paused = true)]
async fn the_deadline_ends_a_slow_body() {
    for provider in PROVIDERS {
        let (search, _) = over_memory(provider, &[Act::Stall]);
        let start = Instant::now();
        let deadline = start + Duration::from_secs(4);
        let outcome = search.search("one", 3, deadline).await;
        assert!(matches!(outcome, Err(WebFault::Deadline(_))), "{} {outcome:?}", provider.name);
        assert_eq!(start.elapsed(), Duration::from_secs(4), "{}", provider.name);
    }
}

#[tokio::test(start_paused = true)]
async fn a_busy_provider_is_asked_again_when_it_says() {
    check(&[busy()], 0.2..1.0).await;
    check(&[busy().with("retry-after", "3")], 3.0..3.6).await;
    let date = busy()
        .with("date", "Sun, 06 Nov 1994 08:49:37 GMT")
        .with("retry-after", "Sun, 06 Nov 1994 08:49:41 GMT");
    check(&[date], 4.0..4.6).await;
    check(&[busy().with("retry-after", "-7")], 0.2..1.0).await;
    let unavailable = Act::bytes(503, "").with("retry-after", "2");
    check(&[unavailable], 2.0..2.6).await;
}

#[tokio::test(start_paused = true)]
async fn an_absurd_pause_fails_the_query_soon_and_ends_after_some_minutes() {
    for provider in PROVIDERS {
        let absurd = busy().with("retry-after", "1000000000");
        let (search, fake) = over_memory(provider, &[absurd, found(provider)]);
        let start = Instant::now();
        let outcome = ask(&search, "one").await;
        assert!(outcome.is_err(), "{} {outcome:?}", provider.name);
        assert!(start.elapsed() < Duration::from_secs(2), "{}", provider.name);
        assert!(ask(&search, "two").await.is_err());
        assert_eq!(fake.calls(), 1, "{}", provider.name);
        advance(Duration::from_mins(5)).await;
        assert_eq!(titles(&ask(&search, "two").await), ["Lima", "Quito"], "{}", provider.name);
    }
}

#[tokio::test(start_paused = true)]
async fn several_failures_are_outlasted() {
    check(&[Act::bytes(500, ""), Act::bytes(502, ""), Act::bytes(504, "")], 1.0..4.0).await;
}

#[tokio::test(start_paused = true)]
async fn a_broken_provider_is_left_alone_and_probed_once() {
    for provider in PROVIDERS {
        let (search, fake) = over_memory(provider, &[Act::bytes(503, "")]);
        let outcome = ask(&search, "one").await;
        let Err(WebFault::Upstream(detail)) = outcome else { panic!("{outcome:?}") };
        assert!(detail.contains("status 503"), "{detail}");
        assert_eq!(fake.calls(), 5, "{}", provider.name);
        let start = Instant::now();
        assert!(ask(&search, "two").await.is_err());
        assert_eq!((fake.calls(), start.elapsed()), (5, Duration::ZERO), "{}", provider.name);
        advance(Duration::from_secs(5)).await;
        let queries: Vec<String> = (0..10).map(|number| format!("query {number}")).collect();
        let outcomes = join_all(queries.iter().map(|query| ask(&search, query))).await;
        assert!(outcomes.iter().all(Result::is_err));
        assert_eq!(fake.calls(), 6, "{}: one probe", provider.name);
    }
}

#[tokio::test(start_paused = true)]
async fn a_caller_that_leaves_the_queue_costs_no_request() {
    for provider in PROVIDERS {
        let fake = Fake::new(&[found(provider)]);
        let mut slow = settings_of(provider, 80);
        slow.requests_per_second = 1.0;
        let search = over(settings(vec![slow]), fake.clone());
        let search = Arc::new(search);
        let start = Instant::now();
        let query = |name: &'static str| {
            let search = Arc::clone(&search);
            tokio::spawn(async move { ask(&search, name).await })
        };
        let (one, two, three) = (query("one"), query("two"), query("three"));
        tokio::time::timeout(Duration::from_millis(100), std::future::pending::<()>())
            .await
            .unwrap_err();
        two.abort();
        assert!(one.await.unwrap().is_ok() && three.await.unwrap().is_ok());
        assert_eq!(fake.calls(), 2, "{}", provider.name);
        assert_eq!(start.elapsed().as_secs(), 1, "{}: the third moves up", provider.name);
        assert!(two.await.unwrap_err().is_cancelled());
    }
}

#[tokio::test(start_paused = true)]
async fn an_equal_query_takes_over_from_one_that_leaves() {
    for provider in PROVIDERS {
        let (search, fake) = over_memory(provider, &[Act::Silent, found(provider)]);
        let query = || {
            let search = Arc::clone(&search);
            tokio::spawn(async move { ask(&search, "same").await })
        };
        let (one, two) = (query(), query());
        tokio::time::timeout(Duration::from_secs(1), std::future::pending::<()>())
            .await
            .unwrap_err();
        assert_eq!(fake.calls(), 1);
        one.abort();
        assert_eq!(titles(&two.await.unwrap()), ["Lima", "Quito"], "{}", provider.name);
        assert_eq!(fake.calls(), 2, "{}", provider.name);
    }
}

/// The exchange with several servers, by the port of the address.
#[derive(Debug)]
struct Several(Vec<Fake>);

impl Exchange for Several {
    fn send(
        &self,
        request: crate::upstream::exchange::Request,
    ) -> crate::upstream::exchange::ExchangeFuture<'_> {
        let port = request.uri().port_u16().unwrap();
        self.0[usize::from(port)].send(request)
    }
}

fn chain(
    providers: [&'static Provider; 2],
    scripts: [Act; 2],
    budget: Option<DailyLimit>,
) -> (WebSearch, [Fake; 2]) {
    let fakes = scripts.map(|act| Fake::new(&[act]));
    let both = (1..).zip(providers).map(|(port, provider)| settings_of(provider, port));
    let mut settings = settings(both.collect());
    settings.budget = budget;
    let servers = [&[Fake::new(&[Act::Silent])], fakes.as_slice()].concat();
    (over(settings, Several(servers)), fakes)
}

#[tokio::test(start_paused = true)]
async fn the_next_provider_answers_if_one_fails_in_any_way() {
    let [serper, brave] = ["serper", "brave"].map(|name| named(name).unwrap());
    for act in [
        Act::bytes(503, ""),
        Act::bytes(401, ""),
        Act::bytes(400, ""),
        busy().with("retry-after", "9999"),
        Act::Silent,
        Act::bytes(200, "<html>"),
    ] {
        let (search, [first, second]) = chain([serper, brave], [act, found(brave)], None);
        let start = Instant::now();
        assert_eq!(titles(&ask(&search, "one").await), ["Lima", "Quito"]);
        assert!(first.calls() >= 1 && second.calls() == 1);
        assert!(start.elapsed() <= DEADLINE / 2 + Duration::from_secs(1));
    }
    // No results are an answer, which no other provider is asked for.
    let nothing = super::shapes::empty(serper);
    let (search, [_, second]) = chain([serper, brave], [nothing, found(brave)], None);
    assert_eq!(ask(&search, "one").await, Ok(Vec::new()));
    assert_eq!(second.calls(), 0);
    // If all fail, what may pass comes before what does not.
    let acts = [Act::bytes(401, ""), Act::bytes(503, "")];
    let (search, _) = chain([serper, brave], acts, None);
    assert!(matches!(ask(&search, "one").await, Err(WebFault::Upstream(_))));
    let acts = [Act::bytes(401, ""), Act::bytes(402, "")];
    let (search, _) = chain([serper, brave], acts, None);
    assert!(matches!(ask(&search, "one").await, Err(WebFault::Refused(_))));
}

#[tokio::test(start_paused = true)]
async fn a_spent_budget_leaves_the_free_provider() {
    let [serper, searxng] = ["serper", "searxng"].map(|name| named(name).unwrap());
    let acts = [found(serper), found(searxng)];
    let (search, [paid, free]) = chain([serper, searxng], acts, Some(DailyLimit::Requests(2)));
    for query in ["one", "two", "three", "four"] {
        assert_eq!(titles(&ask(&search, query).await), ["Lima", "Quito"]);
    }
    assert_eq!((paid.calls(), free.calls()), (2, 2));
    // A request that the provider refused is not counted.
    let brave = named("brave").unwrap();
    let acts = [Act::bytes(400, ""), found(brave)];
    let (search, [first, _]) = chain([serper, brave], acts, Some(DailyLimit::Requests(2)));
    assert!(ask(&search, "one").await.is_ok() && ask(&search, "two").await.is_ok());
    assert_eq!(first.calls(), 2);
    let fault = ask(&search, "three").await.unwrap_err();
    assert!(
        fault.to_string().contains("the budget of 2 requests for this day is spent"),
        "{fault}"
    );
}

#[tokio::test(start_paused = true)]
async fn headers_about_limits_hold_the_next_request() {
    let brave = named("brave").unwrap();
    let used_up = found(brave)
        .with("x-ratelimit-remaining", "0, 1000")
        .with("x-ratelimit-reset", "1, 1419704");
    let (search, _) = over_memory(brave, &[used_up]);
    let start = Instant::now();
    for query in ["one", "two", "three"] {
        ask(&search, query).await.unwrap();
    }
    assert_eq!(start.elapsed(), Duration::from_secs(2));
}
