//! Replies of every kind, over the real HTTP client.

use std::io::Write as _;

use flate2::Compression;
use flate2::write::GzEncoder;
use futures_util::future::join_all;
use serde_json::{Value, json};

use super::fake::{Act, Fake};
use super::shapes::{Item, body, empty, out_of_quota};
use super::{KEY, MAX_REPLY_BYTES, ask, found, over_tcp, titles};
use crate::web::provider::Provider;
use crate::web::providers::PROVIDERS;
use crate::web::result::{MAX_TEXT_BYTES, WebFault, WebResult};

type Outcome = Result<Vec<WebResult>, WebFault>;

/// Checks the outcome of one query to every provider, which `script` makes a server answer.
async fn check(
    script: impl Fn(&Provider) -> Vec<Act>,
    expect: impl Fn(&Provider, &Outcome, &[String]),
) {
    let run = PROVIDERS.map(|provider| {
        let script = script(provider);
        async move {
            let (search, fake) = over_tcp(provider, &script).await;
            (provider, ask(&search, "who built it").await, fake.seen())
        }
    });
    for (provider, outcome, seen) in join_all(run).await {
        expect(provider, &outcome, &seen);
    }
}

fn items(provider: &Provider, items: &[Item]) -> Vec<Act> {
    vec![Act::json(200, &body(provider, items))]
}

#[tokio::test]
async fn results_are_read_and_the_request_holds_query_and_key() {
    check(
        |provider| vec![found(provider)],
        |provider, outcome, seen| {
            let name = provider.name;
            assert_eq!(titles(outcome), ["Lima", "Quito"], "{name}");
            let first = &outcome.as_ref().unwrap()[0];
            assert_eq!(first.text, "A city in Peru.", "{name}");
            assert_eq!(first.url.as_deref(), Some("https://example.org/lima"), "{name}");
            let [request] = seen else { panic!("{name}: {seen:?}") };
            let holds_query = ["who+built+it", "who built it"].iter().any(|q| request.contains(q));
            assert!(holds_query, "{name}: {request}");
            let in_url = KEY.replace('/', "%2F").replace('+', "%2B");
            let holds_key = request.contains(KEY) || request.contains(&in_url);
            assert_eq!(holds_key, provider.needs_key, "{name}: {request}");
        },
    )
    .await;
}

#[tokio::test]
async fn no_results_are_an_answer_in_the_shape_of_each_provider() {
    check(
        |provider| vec![empty(provider)],
        |provider, outcome, seen| {
            assert_eq!(outcome, &Ok(Vec::new()), "{}", provider.name);
            assert_eq!(seen.len(), 1);
        },
    )
    .await;
}

#[tokio::test]
async fn absent_and_null_texts_leave_the_rest_of_a_result() {
    let url = |name: &str| json!(format!("https://example.org/{name}"));
    check(
        |provider| {
            items(
                provider,
                &[
                    (json!("a"), url("a"), json!("absent")),
                    (Value::Null, url("b"), json!("text")),
                    (json!("c"), url("c"), Value::Null),
                ],
            )
        },
        |provider, outcome, _| {
            let passages: Vec<String> = outcome
                .clone()
                .unwrap()
                .into_iter()
                .map(|result| result.into_passage("-").contents)
                .collect();
            let expected = ["\"a\"", "\"example.org\"\ntext", "\"c\""];
            assert_eq!(passages, expected, "{}", provider.name);
        },
    )
    .await;
}

#[tokio::test]
async fn long_texts_are_cut_and_results_of_one_page_are_joined() {
    let url = json!("https://example.org/a");
    check(
        |provider| {
            let long = json!("word ".repeat(10_000));
            items(
                provider,
                &[
                    (json!("a"), url.clone(), long),
                    (json!("b"), json!("https://b.org"), json!("x")),
                ],
            )
        },
        |provider, outcome, _| {
            let text = &outcome.as_ref().unwrap()[0].text;
            assert!(
                (MAX_TEXT_BYTES - 8..=MAX_TEXT_BYTES).contains(&text.len()),
                "{}",
                provider.name
            );
        },
    )
    .await;
    check(
        |provider| {
            let item = |text: &str| (json!("a"), url.clone(), json!(text));
            items(provider, &[item("one"), item("two"), item("one")])
        },
        |provider, outcome, _| {
            let texts: Vec<_> = outcome.as_ref().unwrap().iter().map(|r| r.text.as_str()).collect();
            assert_eq!(texts, ["one\ntwo"], "{}", provider.name);
        },
    )
    .await;
}

/// Each is a broken reply, after which the same request succeeds.
#[tokio::test]
async fn broken_replies_are_tried_again() {
    let captcha = Act::bytes(200, "<html>captcha</html>").with("content-type", "text/html");
    let truncated = Act::bytes(200, r#"{"results": [{"title": "#);
    let strange = Act::json(200, &json!({"strange": true}));
    let faults = [captcha, truncated, strange, Act::Cut, Act::bytes(500, ""), Act::bytes(502, "x")];
    let runs = faults.map(|fault| {
        check(
            move |provider| vec![fault.clone(), found(provider)],
            |provider, outcome, seen| {
                assert_eq!(titles(outcome), ["Lima", "Quito"], "{} {outcome:?}", provider.name);
                assert_eq!(seen.len(), 2, "{}", provider.name);
            },
        )
    });
    join_all(runs).await;
}

#[tokio::test]
async fn packed_replies_and_bytes_that_are_no_text_are_read() {
    check(
        |provider| {
            let Act::Reply { body, .. } = found(provider) else { panic!("a reply") };
            let mut packer = GzEncoder::new(Vec::new(), Compression::fast());
            packer.write_all(&body).unwrap();
            vec![Act::bytes(200, packer.finish().unwrap()).with("content-encoding", "gzip")]
        },
        |provider, outcome, _| assert_eq!(titles(outcome), ["Lima", "Quito"], "{}", provider.name),
    )
    .await;
    check(
        |provider| {
            let Act::Reply { body, .. } = found(provider) else { panic!("a reply") };
            let at = body.windows(4).position(|window| window == b"Lima").unwrap();
            let mut body = body;
            body[at + 1] = 0xff;
            vec![Act::bytes(200, body)]
        },
        |provider, outcome, _| {
            assert_eq!(titles(outcome), ["L\u{fffd}ma", "Quito"], "{}", provider.name);
        },
    )
    .await;
}

/// Refusals are final: there is no second attempt, and the next query does not even reach the provider.
#[tokio::test]
async fn refusals_are_not_repeated() {
    let refusals = [None, Some(401), Some(402), Some(403)].map(|status| {
        PROVIDERS.map(|provider| async move {
            let act = status.map_or_else(
                || out_of_quota(provider),
                |status| Act::json(status, &json!({"error": format!("no: {KEY}")})),
            );
            let (search, fake) = over_tcp(provider, &[act]).await;
            let (one, two) = (ask(&search, "one").await, ask(&search, "two").await);
            (provider, one, two, fake.calls())
        })
    });
    for (provider, one, two, calls) in join_all(refusals.into_iter().flatten()).await {
        let name = provider.name;
        for outcome in [one, two] {
            let Err(WebFault::Refused(detail)) = outcome else { panic!("{name}: {outcome:?}") };
            assert!(detail.starts_with(name) && detail.contains("status 4"), "{detail}");
            assert!(!detail.contains("s3cret") || !provider.needs_key, "{detail}");
        }
        assert_eq!(calls, 1, "{name}");
    }
}

#[tokio::test]
async fn a_bad_request_fails_its_query_only_and_shows_no_key() {
    check(
        |_| {
            let in_url = "k=s3cret%2Fkey%2B1";
            vec![Act::json(400, &json!({"error": format!("bad {KEY} {in_url}")}))]
        },
        |provider, outcome, seen| {
            let Err(WebFault::Refused(detail)) = outcome else { panic!("{outcome:?}") };
            assert!(detail.contains("status 400: bad"), "{detail}");
            assert!(!detail.contains("s3cret") || !provider.needs_key, "{detail}");
            assert_eq!(seen.len(), 1);
        },
    )
    .await;
    let queries = PROVIDERS.map(|provider| async move {
        let bad = Act::json(400, &json!({"error": "bad"}));
        let (search, _) = over_tcp(provider, &[bad, found(provider)]).await;
        (ask(&search, "one").await.is_err(), ask(&search, "two").await)
    });
    for (failed, next) in join_all(queries).await {
        assert!(failed);
        assert_eq!(titles(&next), ["Lima", "Quito"]);
    }
}

#[tokio::test]
async fn a_redirect_leads_the_key_nowhere() {
    let other = Fake::new(&[Act::bytes(200, "{}")]);
    let to = format!("http://localhost:{}/elsewhere", other.listen().await);
    check(
        |_| vec![Act::bytes(302, "").with("location", to.clone())],
        |provider, outcome, seen| {
            let Err(WebFault::Refused(detail)) = outcome else { panic!("{outcome:?}") };
            let expected = "status 302, a redirect to localhost, is not followed";
            assert!(detail.contains(expected), "{} {detail}", provider.name);
            assert_eq!(seen.len(), 1);
        },
    )
    .await;
    assert_eq!(other.calls(), 0);
}

#[tokio::test]
async fn a_reply_beyond_the_limit_is_given_up() {
    check(
        |_| vec![Act::bytes(200, vec![b' '; MAX_REPLY_BYTES + 1])],
        |provider, outcome, seen| {
            let Err(WebFault::Refused(detail)) = outcome else { panic!("{outcome:?}") };
            assert!(detail.contains("larger than 262144 bytes"), "{} {detail}", provider.name);
            assert_eq!(seen.len(), 1);
        },
    )
    .await;
}

#[tokio::test]
async fn a_query_is_clipped_to_what_the_provider_takes() {
    let query = (0..3000).map(|number| format!("w{number}")).collect::<Vec<_>>().join(" ");
    let runs = PROVIDERS.map(|provider| {
        let query = query.as_str();
        async move {
            let (search, fake) = over_tcp(provider, &[found(provider)]).await;
            let outcome = ask(&search, query).await;
            assert_eq!(titles(&outcome), ["Lima", "Quito"], "{}", provider.name);
            let request = fake.seen().pop().unwrap();
            let sent = request
                .split(['+', ' ', '"', '=', '&'])
                .filter(|part| part.strip_prefix('w').is_some_and(|n| n.parse::<u32>().is_ok()));
            let words: Vec<&str> = sent.collect();
            let chars = words.join(" ").len();
            assert!(words.len() <= provider.limit.words, "{} {}", provider.name, words.len());
            assert!(chars <= provider.limit.chars && chars > 100, "{} {chars}", provider.name);
        }
    });
    join_all(runs).await;
}

#[tokio::test]
async fn equal_queries_at_one_time_are_one_request_and_failures_are_not_kept() {
    let runs = PROVIDERS.map(|provider| async move {
        let (search, fake) = over_tcp(provider, &[found(provider)]).await;
        let outcomes = join_all((0..20).map(|_| ask(&search, "same"))).await;
        assert!(outcomes.iter().all(|outcome| titles(outcome) == ["Lima", "Quito"]));
        let again = ask(&search, " same ").await;
        assert_eq!((titles(&again), fake.calls()), (vec!["Lima", "Quito"], 1), "{}", provider.name);
        let bad = Act::json(404, &json!({}));
        let (search, fake) = over_tcp(provider, &[bad, found(provider)]).await;
        assert!(ask(&search, "same").await.is_err());
        assert_eq!(titles(&ask(&search, "same").await), ["Lima", "Quito"], "{}", provider.name);
        assert_eq!(fake.calls(), 2);
    });
    join_all(runs).await;
}

/// An engine that failed might have found something.
#[tokio::test]
async fn searxng_without_results_but_with_failed_engines_has_failed() {
    let provider = crate::web::providers::named("searxng").unwrap();
    let mut nothing = body(provider, &[]);
    nothing["unresponsive_engines"] =
        json!([["google", "Suspended: CAPTCHA"], ["bing", "timeout"]]);
    let (search, fake) = over_tcp(provider, &[Act::json(200, &nothing), found(provider)]).await;
    assert_eq!(titles(&ask(&search, "one").await), ["Lima", "Quito"]);
    assert_eq!(fake.calls(), 2);
}

#[tokio::test]
async fn answer_boxes_come_first_where_a_provider_has_them() {
    let serper = crate::web::providers::named("serper").unwrap();
    let mut page = body(serper, &[(json!("Lima"), json!("https://l.org"), json!("A city."))]);
    page["answerBox"] =
        json!({"title": "Population", "answer": "10 million", "link": "https://p.org"});
    page["knowledgeGraph"] = json!({"title": "Lima", "type": "Capital", "description": "Of Peru."});
    let (search, _) = over_tcp(serper, &[Act::json(200, &page)]).await;
    let results = ask(&search, "one").await.unwrap();
    let texts: Vec<_> = results.iter().map(|result| result.text.as_str()).collect();
    assert_eq!(texts, ["10 million", "Capital\nOf Peru.", "A city."]);
}
