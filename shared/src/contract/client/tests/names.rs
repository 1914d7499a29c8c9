//! Tests of the client with a name of several servers.

use std::net::{IpAddr, SocketAddr};

use reqwest::dns::{Addrs, Name, Resolve, Resolving};

use super::fake::{Conduct, Fake, LONG, PATIENCE, pass, search, search_many};
use super::*;
use crate::contract::client::discovery::Resolver;

/// A resolver with answers that the test sets: addresses, or a failure.
#[derive(Clone, Debug, Default)]
struct FakeResolver(Arc<Mutex<VecDeque<Vec<IpAddr>>>>);

impl Resolve for FakeResolver {
    fn resolve(&self, name: Name) -> Resolving {
        assert_eq!(name.as_str(), "retrievers.test");
        let mut answers = self.0.lock().unwrap();
        // The last answer stays.
        let answer = if answers.len() > 1 { answers.pop_front() } else { answers.front().cloned() };
        Box::pin(async move {
            let answer = answer.ok_or("no such name")?;
            let addresses = answer.into_iter().map(|ip| SocketAddr::new(ip, 0));
            Ok(Box::new(addresses) as Addrs)
        })
    }
}

/// Starts servers at these addresses, with one port.
async fn start_at(servers: &[(&'static str, [u8; 4])]) -> (Vec<Fake>, u16) {
    'ports: loop {
        let mut listeners: Vec<TcpListener> = Vec::new();
        let mut port = 0;
        for (_, ip) in servers {
            // Another process may have the port at the second address.
            let Ok(listener) = TcpListener::bind((IpAddr::from(*ip), port)).await else {
                continue 'ports;
            };
            port = listener.local_addr().unwrap().port();
            listeners.push(listener);
        }
        let start = |((name, _), listener): (&(&'static str, [u8; 4]), TcpListener)| {
            let fake = Fake::new(name);
            fake.serve(listener);
            fake
        };
        return (servers.iter().zip(listeners).map(start).collect(), port);
    }
}

#[tokio::test]
async fn each_address_of_a_name_is_a_server() {
    let addresses = [[127, 0, 0, 1], [127, 0, 0, 2], [127, 0, 0, 3]];
    let [one, two, three] = addresses.map(IpAddr::from);
    let names = ["a", "b", "c"];
    let servers: Vec<_> = names.into_iter().zip(addresses).collect();
    let (fakes, port) = start_at(&servers).await;
    let resolver = FakeResolver::default();
    let mut config = config(&format!("dns+http://retrievers.test:{port}"));
    config.hedge_percent = 0;
    config.retry.deadline = Duration::from_millis(300);
    let client =
        RetrieveClient::with_resolver(config, Resolver(Arc::new(resolver.clone()))).unwrap();

    let error = client.retrieve(&queries(&["q"]), 1).await.remove(0).unwrap_err().to_string();
    let expected =
        format!("no answer from the retriever at dns+http://retrievers.test:{port}/retrieve");
    assert!(error.starts_with(&expected), "{error}");
    assert!(error.ends_with("cannot look up \"retrievers.test\": no such name"), "{error}");
    let replies = client.ask_each_once("q", 1, PATIENCE).await;
    assert!(replies.len() == 1 && replies[0].result.is_err());

    *resolver.0.lock().unwrap() = VecDeque::from([vec![two, one, two]]);
    let turns = search_many(&client, 4).await;
    assert!(["abab", "baba"].contains(&&*turns), "each once: {turns}");
    fakes[1].behave(Conduct::Refuse(422, "0"));
    let error = loop {
        if let Err(error) = client.retrieve(&queries(&["q"]), 1).await.remove(0) {
            break error.to_string();
        }
    };
    let shown = format!("http://retrievers.test:{port}/retrieve (127.0.0.2)");
    assert!(error.contains(&shown), "{error}");

    // The second server moves. Its failure has the name looked up again.
    fakes[1].behave(Conduct::Refuse(503, "0"));
    *resolver.0.lock().unwrap() = VecDeque::from([vec![one, three]]);
    assert_eq!(search_many(&client, 2).await, "aa");
    pass(Duration::from_secs(2)).await;
    let mut answered = String::new();
    for _ in 0..100 {
        answered += &search(&client).await;
        if answered.contains('c') {
            break;
        }
    }
    assert!(answered.contains('c'), "{answered}");
    // A name that is gone keeps its servers.
    resolver.0.lock().unwrap().clear();
    pass(LONG).await;
    let answered = search_many(&client, 6).await;
    assert!(answered.contains('a') && answered.contains('c'), "{answered}");
}
