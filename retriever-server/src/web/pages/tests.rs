//! The guard's list, and pages from servers of the test, whose guard lets this machine pass.

use std::io::Write as _;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use flate2::Compression;
use flate2::write::GzEncoder;
use tokio::time::Instant;

use super::guard::{Guard, LookupFuture, is_public};
use super::{PageFault, PageReader};
use crate::web::result::WebResult;
use crate::web::tests::fake::{Act, Fake};

#[test]
fn addresses_inside_a_network_are_refused_in_every_form() {
    let guard = Guard::public_web();
    for url in [
        "http://127.0.0.1/",
        "http://127.1/",
        "http://2130706433/",
        "http://0177.0.0.1/",
        "http://0x7f.0.0.1/",
        "http://0x7f000001/",
        "http://0/",
        "http://10.0.0.1/",
        "http://172.31.255.255/",
        "http://192.168.1.1/",
        "http://169.254.169.254/latest/meta-data/",
        "http://100.64.0.1/",
        "http://192.0.0.8/",
        "http://198.18.0.1/",
        "http://224.0.0.1/",
        "http://255.255.255.255/",
        "http://[::1]/",
        "http://[::]/",
        "http://[::ffff:127.0.0.1]/",
        "http://[::ffff:8.8.8.8]/",
        "http://[::7f00:1]/",
        "http://[2002:7f00:1::]/",
        "http://[64:ff9b::7f00:1]/",
        "http://[64:ff9b:1::a00:1]/",
        "http://[2001:0:7f00:1::]/",
        "http://[2001:db8::1]/",
        "http://[fe80::1]/",
        "http://[fc00::1]/",
        "http://[fd00:ec2::254]/",
        "http://[ff02::1]/",
        "http://\u{ff11}\u{ff12}\u{ff17}.0.0.1/",
        "http://127.0.0.1:8080/",
        "http://8.8.8.8:22/",
        "http://user:password@example.org/",
        "ftp://example.org/",
        "file:///etc/passwd",
        "gopher://example.org/",
        "javascript:alert(1)",
        "no address",
    ] {
        let vetted = guard.vet(url);
        assert!(matches!(vetted, Err(PageFault::Forbidden(_))), "{url}: {vetted:?}");
    }
    for url in ["http://8.8.8.8/", "https://[2606:4700::1111]/", "https://example.org:443/a?b"] {
        assert!(guard.vet(url).is_ok(), "{url}");
    }
    for (address, expected) in [
        ("9.255.255.255", true),
        ("11.0.0.0", true),
        ("172.15.255.255", true),
        ("172.32.0.0", true),
        ("223.255.255.255", true),
        ("100.63.255.255", true),
        ("100.127.255.255", false),
        ("2001:200::1", true),
        ("2003::1", true),
        ("4000::1", false),
    ] {
        assert_eq!(is_public(address.parse().unwrap()), expected, "{address}");
    }
}

/// Names of the test: those that begin with `inner` resolve to an address inside the network, others to this
/// machine.
#[expect(clippy::needless_pass_by_value, reason = "a look-up has this signature")]
fn lookup(name: String) -> LookupFuture {
    let address = match name.as_str() {
        "inner-private.test" => "10.0.0.1:0",
        "inner-mapped.test" => "[::ffff:10.0.0.1]:0",
        "inner-metadata.test" => "169.254.169.254:0",
        _ => "127.0.0.1:0",
    };
    Box::pin(async move { Ok(vec![address.parse::<SocketAddr>().unwrap()]) })
}

/// A guard that lets this machine pass, as far as its names are looked up.
fn guard() -> Guard {
    let allows_address = |address: IpAddr| is_public(address) || address.to_string() == "127.0.0.1";
    Guard { allows_address, allows_port: |_| true, lookup: Arc::new(lookup) }
}

/// Returns the text of a result after its page was read.
async fn read(reader: &PageReader, url: &str) -> String {
    let mut results = [WebResult::new("Tower", Some(url), "the snippet")];
    let deadline = Instant::now() + Duration::from_secs(30);
    reader.enrich("who built the tower", &mut results, deadline).await;
    results[0].text.clone()
}

/// Returns a page whose second paragraph fits the query.
fn article() -> String {
    let filler = "The town has many houses, a market and a river with three bridges. ".repeat(6);
    let wanted = "The tower was built by the company of Anna Meier in the year 1889. ".repeat(4);
    format!(
        "<html><head><title>Tower</title><script>built tower</script></head><body>\
         <nav>tower built menu</nav><article><h1>Tower</h1><p>{filler}</p><p>{wanted}</p>\
         <p>{filler}</p></article></body></html>"
    )
}

fn html(body: impl Into<Vec<u8>>) -> Act {
    Act::bytes(200, body).with("content-type", "text/html; charset=UTF-8")
}

fn no_robots() -> Act {
    Act::bytes(404, "")
}

async fn page(script: &[Act]) -> (String, Fake) {
    let fake = Fake::new(script);
    let url = format!("http://site.test:{}/page", fake.listen().await);
    let reader = PageReader::over(guard()).unwrap();
    (read(&reader, &url).await, fake)
}

#[tokio::test]
async fn the_best_paragraphs_of_a_page_replace_the_snippet() {
    let (text, fake) = page(&[no_robots(), html(article())]).await;
    assert!(text.starts_with("The tower was built by the company of Anna Meier"), "{text}");
    assert!(!text.contains("menu") && !text.contains("market"), "{text}");
    let seen = fake.seen();
    assert!(seen[0].starts_with("GET /robots.txt ") && seen[1].starts_with("GET /page "));
    assert!(seen[1].contains("user-agent: search-r1-retriever/"));
    let mut packer = GzEncoder::new(Vec::new(), Compression::fast());
    packer.write_all(article().as_bytes()).unwrap();
    let packed = html(packer.finish().unwrap()).with("content-encoding", "gzip");
    assert!(page(&[no_robots(), packed]).await.0.contains("Anna Meier"));
    let plain =
        Act::bytes(200, "Who built the tower? Anna Meier.").with("content-type", "text/plain");
    assert!(page(&[no_robots(), plain]).await.0.contains("Anna Meier"));
}

#[tokio::test]
async fn a_page_that_cannot_be_read_leaves_the_snippet() {
    let robots = Act::bytes(200, "User-agent: *\nDisallow: /");
    let other = Act::bytes(200, "%PDF").with("content-type", "application/pdf");
    let latin = Act::bytes(200, article()).with("content-type", "text/html; charset=iso-8859-1");
    let mut bomb = GzEncoder::new(Vec::new(), Compression::best());
    bomb.write_all(&vec![b' '; 8 << 20]).unwrap();
    let bomb = html(bomb.finish().unwrap()).with("content-encoding", "gzip");
    for (script, requests) in [
        (vec![robots, html(article())], 1),
        (vec![Act::bytes(503, ""), html(article())], 1),
        (vec![no_robots(), other], 2),
        (vec![no_robots(), latin], 2),
        (vec![no_robots(), bomb], 2),
        (vec![no_robots(), Act::bytes(404, article())], 2),
        (vec![no_robots(), html("<html></html>")], 2),
        (vec![no_robots(), Act::Cut], 2),
    ] {
        let (text, fake) = page(&script).await;
        assert_eq!((text.as_str(), fake.calls()), ("the snippet", requests));
    }
}

#[tokio::test]
async fn redirects_and_names_that_lead_inside_are_refused() {
    let to = |target: &str| Act::bytes(302, "").with("location", target);
    for target in [
        "http://10.0.0.1/",
        "http://[::1]/",
        "http://2130706434/",
        "//169.254.169.254/latest",
        "http://inner-private.test/",
        "http://inner-mapped.test/",
        "file:///etc/passwd",
    ] {
        let (text, fake) = page(&[no_robots(), to(target), html(article())]).await;
        assert_eq!((text.as_str(), fake.calls()), ("the snippet", 2), "{target}");
    }
    let reader = PageReader::over(guard()).unwrap();
    for name in ["inner-private.test", "inner-mapped.test", "inner-metadata.test"] {
        assert_eq!(read(&reader, &format!("http://{name}/")).await, "the snippet");
    }
    // The guard of the real reader lets no name pass that is this machine.
    let fake = Fake::new(&[no_robots(), html(article())]);
    fake.listen().await;
    let machine = Guard { allows_port: |_| true, lookup: Arc::new(lookup), ..Guard::public_web() };
    let reader = PageReader::over(machine).unwrap();
    assert_eq!(read(&reader, "http://site.test/").await, "the snippet");
    assert_eq!(fake.calls(), 0);
}

#[tokio::test]
async fn a_redirect_within_the_public_web_is_followed_and_an_endless_one_is_not() {
    let fake = Fake::new(&[no_robots(), html(article())]);
    let port = fake.listen().await;
    let to = Act::bytes(301, "").with("location", format!("http://moved.test:{port}/there"));
    let (text, first) = page(&[no_robots(), to]).await;
    assert!(text.contains("Anna Meier"), "{text}");
    assert_eq!((first.calls(), fake.calls()), (2, 2), "each host's robots.txt is asked for");
}

#[tokio::test]
async fn a_page_is_fetched_once_for_many_queries() {
    let fake = Fake::new(&[no_robots(), html(article())]);
    let url = format!("http://site.test:{}/page", fake.listen().await);
    let reader = PageReader::over(guard()).unwrap();
    let texts = futures_util::future::join_all((0..5).map(|_| read(&reader, &url))).await;
    assert!(texts.iter().all(|text| text.contains("Anna Meier")));
    assert_eq!(fake.calls(), 2);
}
