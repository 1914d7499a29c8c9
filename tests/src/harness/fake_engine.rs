//! Engines in this process that speak the documented HTTP protocols of Qdrant, Chroma and Elasticsearch. They store
//! what they are sent, search all of it, and fail as they are told.

use std::collections::{BTreeMap, VecDeque};
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

use serde_json::{Map, Value, json};

/// The identifier of the collection of Chroma.
const CHROMA_ID: &str = "0b0e1cbf-2f4b-4f0c-9d6c-3f1f6f6d2a11";

/// The protocols.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Protocol {
    Qdrant,
    Chroma,
    Elasticsearch,
}

/// A failure of one request.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Fault {
    /// A status with a text and a value of `Retry-After`, if there is one.
    Status(u16, &'static str, Option<u32>),
    /// A success with this text instead of the answer.
    Says(&'static str),
    /// The connection is closed without an answer.
    Closes,
}

/// The state of an engine.
#[derive(Debug, Default)]
struct State {
    /// Settings of the collection, if there is one.
    collection: Option<Value>,
    /// The stored records, by identifier: vector (if any) and fields.
    records: BTreeMap<String, (Vec<f64>, Value)>,
    /// Faults, each for the next request whose path contains the text.
    faults: VecDeque<(&'static str, Fault)>,
    /// Method and path of every request.
    requests: Vec<String>,
    /// The key of the last request.
    key: String,
}

/// A running engine.
pub(crate) struct FakeEngine {
    pub(crate) url: String,
    state: Arc<Mutex<State>>,
}

/// A request.
struct Asked {
    method: String,
    path: String,
    body: String,
}

impl Asked {
    fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or(Value::Null)
    }

    fn lines(&self) -> Vec<Value> {
        assert!(self.body.ends_with('\n'), "the last line must end");
        self.body.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }
}

impl FakeEngine {
    pub(crate) fn start(protocol: Protocol) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let state = Arc::new(Mutex::new(State::default()));
        let shared = Arc::clone(&state);
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let shared = Arc::clone(&shared);
                std::thread::spawn(move || serve(stream, protocol, &shared));
            }
        });
        Self { url, state }
    }

    /// Lets the next request whose path contains `part` fail; further calls are for later requests.
    pub(crate) fn fail(&self, part: &'static str, fault: Fault) {
        self.state.lock().unwrap().faults.push_back((part, fault));
    }

    /// Returns the number of stored records.
    pub(crate) fn count(&self) -> usize {
        self.state.lock().unwrap().records.len()
    }

    /// Returns the number of requests so far whose path contains `part`.
    pub(crate) fn requests(&self, part: &str) -> usize {
        self.state.lock().unwrap().requests.iter().filter(|path| path.contains(part)).count()
    }

    /// Returns the key that came with the last request.
    pub(crate) fn key(&self) -> String {
        self.state.lock().unwrap().key.clone()
    }

    /// Returns the settings of the collection as text.
    pub(crate) fn settings(&self) -> String {
        self.state.lock().unwrap().collection.as_ref().unwrap().to_string()
    }

    /// Replaces a text in the settings of the collection, as another program may have written them.
    pub(crate) fn amend(&self, from: &str, to: &str) {
        let settings = self.settings();
        assert!(settings.contains(from), "{from:?} is not in {settings}");
        let settings = serde_json::from_str(&settings.replace(from, to)).unwrap();
        self.state.lock().unwrap().collection = Some(settings);
    }

    /// Cuts every stored vector to this length.
    pub(crate) fn cut_vectors(&self, length: usize) {
        let mut state = self.state.lock().unwrap();
        state.records.values_mut().for_each(|(vector, _)| vector.truncate(length));
    }

    /// Removes the collection, as another user of the engine may.
    pub(crate) fn forget(&self) {
        let mut state = self.state.lock().unwrap();
        state.collection = None;
        state.records.clear();
    }
}

fn serve(mut stream: TcpStream, protocol: Protocol, state: &Mutex<State>) {
    let Some((asked, key)) = read(&stream) else { return };
    let mut state = state.lock().unwrap();
    state.requests.push(format!("{} {}", asked.method, asked.path));
    state.key = key;
    let position = state.faults.iter().position(|(part, _)| asked.path.contains(part));
    let fault = position.and_then(|position| state.faults.remove(position));
    let (status, text, pause) = match fault {
        Some((_, Fault::Closes)) => return,
        Some((_, Fault::Status(status, text, pause))) => (status, text.to_owned(), pause),
        Some((_, Fault::Says(text))) => (200, text.to_owned(), None),
        None => {
            let (status, answer) = match protocol {
                Protocol::Qdrant => qdrant(&mut state, &asked),
                Protocol::Chroma => chroma(&mut state, &asked),
                Protocol::Elasticsearch => elasticsearch(&mut state, &asked),
            };
            (status, answer.to_string(), None)
        }
    };
    let pause = pause.map_or_else(String::new, |pause| format!("retry-after: {pause}\r\n"));
    // A client that gave up may have closed the connection: ignore the error.
    let _ = write!(
        stream,
        "HTTP/1.1 {status} X\r\ncontent-type: application/json\r\n{pause}content-length: {}\r\n\
         connection: close\r\n\r\n{text}",
        text.len()
    );
}

/// Reads a request, and the key in its headers.
fn read(stream: &TcpStream) -> Option<(Asked, String)> {
    let mut reader = BufReader::new(stream.try_clone().unwrap());
    let (mut head, mut length, mut key) = (String::new(), 0, String::new());
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line).unwrap_or(0) == 0 {
            return None;
        }
        let Some((name, value)) = line.trim().split_once(':') else {
            if line.trim().is_empty() {
                break;
            }
            head = line;
            continue;
        };
        match name.to_ascii_lowercase().as_str() {
            "content-length" => length = value.trim().parse().unwrap(),
            "api-key" | "x-chroma-token" | "authorization" => value.trim().clone_into(&mut key),
            _ if head.is_empty() => head = line,
            _ => {}
        }
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body).ok()?;
    let mut words = head.split(' ');
    let (method, path) = (words.next()?.to_owned(), words.next()?.to_owned());
    Some((Asked { method, path, body: String::from_utf8(body).unwrap() }, key))
}

fn numbers(value: &Value) -> Vec<f64> {
    value.as_array().unwrap().iter().map(|number| number.as_f64().unwrap()).collect()
}

fn product(one: &[f64], other: &[f64]) -> f64 {
    one.iter().zip(other).map(|(one, other)| one * other).sum()
}

impl State {
    /// Returns identifier, score and fields of the best records for a vector.
    fn nearest(&self, query: &[f64], top_k: &Value) -> Vec<(&String, f64, &Value)> {
        let scored =
            self.records.iter().map(|(id, (vector, fields))| (id, product(query, vector), fields));
        Self::best(scored.collect(), top_k)
    }

    fn best<'a>(
        mut scored: Vec<(&'a String, f64, &'a Value)>,
        top_k: &Value,
    ) -> Vec<(&'a String, f64, &'a Value)> {
        scored.sort_by(|one, other| other.1.total_cmp(&one.1));
        scored.truncate(top_k.as_u64().unwrap() as usize);
        scored
    }
}

/// Copies the keys of `changes` over those of `value`.
fn merge(value: &mut Value, changes: &Value) {
    let map = value.as_object_mut().unwrap();
    for (key, change) in changes.as_object().unwrap() {
        map.insert(key.clone(), change.clone());
    }
}

fn qdrant(state: &mut State, asked: &Asked) -> (u16, Value) {
    let path = asked.path.split('?').next().unwrap();
    let parts: Vec<&str> = path.trim_start_matches('/').split('/').collect();
    assert_eq!(parts[0], "collections");
    let ok = |result: Value| (200, json!({"result": result, "status": "ok", "time": 0.001}));
    let fails =
        |status: u16, text: String| (status, json!({"status": {"error": text}, "time": 0.001}));
    let (method, body) = (asked.method.as_str(), asked.json());
    if (method, parts.len()) == ("PUT", 2) {
        state.collection = Some(body);
        return ok(json!(true));
    }
    let Some(collection) = &mut state.collection else {
        return fails(404, format!("Not found: Collection `{}` doesn't exist!", parts[1]));
    };
    match (method, &parts[2..]) {
        ("GET", []) => ok(json!({
            "status": "green",
            "optimizer_status": "ok",
            "config": {"params": {"vectors": collection["vectors"]}, "metadata": collection["metadata"]},
        })),
        ("PATCH", []) => {
            merge(collection, &body);
            ok(json!(true))
        }
        ("DELETE", []) => {
            state.collection = None;
            state.records.clear();
            ok(json!(true))
        }
        ("PUT", ["points"]) => {
            assert!(asked.path.ends_with("?wait=true"), "{}", asked.path);
            let size = collection["vectors"]["size"].as_u64().unwrap() as usize;
            for point in body["points"].as_array().unwrap() {
                let vector = numbers(&point["vector"]);
                if vector.len() != size {
                    let got = vector.len();
                    let text = format!(
                        "Wrong input: Vector dimension error: expected dim: {size}, got {got}"
                    );
                    return fails(400, text);
                }
                let id = point["id"].as_str().unwrap().to_owned();
                state.records.insert(id, (vector, point["payload"].clone()));
            }
            ok(json!({"operation_id": 1, "status": "completed"}))
        }
        ("POST", ["points", "count"]) => ok(json!({"count": state.records.len()})),
        ("POST", ["points", "query", "batch"]) => {
            let searches = body["searches"].as_array().unwrap().iter();
            let list = |search: &Value| {
                let nearest = state.nearest(&numbers(&search["query"]), &search["limit"]);
                let points: Vec<Value> = nearest
                    .into_iter()
                    .map(|(id, score, fields)| json!({"id": id, "version": 1, "score": score, "payload": fields}))
                    .collect();
                json!({"points": points})
            };
            ok(searches.map(list).collect())
        }
        other => panic!("{other:?}"),
    }
}

fn chroma(state: &mut State, asked: &Asked) -> (u16, Value) {
    let path =
        asked.path.trim_start_matches("/api/v2/tenants/default_tenant/databases/default_database/");
    let parts: Vec<&str> = path.split('/').collect();
    assert_eq!(parts[0], "collections", "{}", asked.path);
    let (method, body) = (asked.method.as_str(), asked.json());
    if (method, parts.len()) == ("POST", 1) {
        state.collection =
            Some(json!({"id": CHROMA_ID, "name": body["name"], "metadata": body["metadata"]}));
        return (200, state.collection.clone().unwrap());
    }
    let Some(collection) = &mut state.collection else {
        return (
            404,
            json!({"error": "NotFoundError", "message": format!("Collection [{}] does not exist", parts[1])}),
        );
    };
    match (method, &parts[2..]) {
        ("GET", []) => (200, collection.clone()),
        ("PUT", []) => {
            collection["metadata"] = body["new_metadata"].clone();
            (200, json!({}))
        }
        ("DELETE", []) => {
            state.collection = None;
            state.records.clear();
            (200, json!({}))
        }
        ("GET", ["count"]) => (200, json!(state.records.len())),
        ("POST", ["upsert"]) => {
            for (n, id) in body["ids"].as_array().unwrap().iter().enumerate() {
                let mut fields = Map::new();
                fields.insert("document".to_owned(), body["documents"][n].clone());
                fields.insert("metadata".to_owned(), body["metadatas"][n].clone());
                let record = (numbers(&body["embeddings"][n]), Value::Object(fields));
                state.records.insert(id.as_str().unwrap().to_owned(), record);
            }
            (200, json!({}))
        }
        ("POST", ["query"]) => {
            let mut answer = json!({"ids": [], "documents": [], "metadatas": [], "distances": [], "embeddings": null});
            for query in body["query_embeddings"].as_array().unwrap() {
                let query = numbers(query);
                if state.records.values().any(|(vector, _)| vector.len() != query.len()) {
                    let message = "Collection expecting embedding with another dimension";
                    return (400, json!({"error": "InvalidArgumentError", "message": message}));
                }
                let nearest = state.nearest(&query, &body["n_results"]);
                let list = |value: &dyn Fn(&(&String, f64, &Value)) -> Value| -> Value {
                    nearest.iter().map(value).collect()
                };
                let lists = [
                    ("ids", list(&|hit| json!(hit.0))),
                    ("documents", list(&|hit| hit.2["document"].clone())),
                    ("metadatas", list(&|hit| hit.2["metadata"].clone())),
                    ("distances", list(&|hit| json!(1.0 - hit.1))),
                ];
                for (name, list) in lists {
                    answer[name].as_array_mut().unwrap().push(list);
                }
            }
            (200, answer)
        }
        other => panic!("{other:?}"),
    }
}

fn elasticsearch(state: &mut State, asked: &Asked) -> (u16, Value) {
    let path = asked.path.split('?').next().unwrap();
    let parts: Vec<&str> = path.trim_start_matches('/').split('/').collect();
    if (asked.method.as_str(), &parts[..]) == ("POST", &["_msearch"]) {
        return msearch(state, asked);
    }
    if (asked.method.as_str(), parts.len()) == ("PUT", 1) {
        state.collection = Some(asked.json()["mappings"].clone());
        return (200, json!({"acknowledged": true, "index": parts[0]}));
    }
    let missing = json!({"type": "index_not_found_exception", "reason": format!("no such index [{}]", parts[0])});
    let Some(mappings) = &mut state.collection else {
        return (404, json!({"error": missing, "status": 404}));
    };
    match (asked.method.as_str(), &parts[1..]) {
        ("GET", ["_mapping"]) => (200, json!({parts[0]: {"mappings": mappings}})),
        ("PUT", ["_mapping"]) => {
            merge(mappings, &asked.json());
            (200, json!({"acknowledged": true}))
        }
        ("DELETE", []) => {
            state.collection = None;
            state.records.clear();
            (200, json!({"acknowledged": true}))
        }
        ("POST", ["_bulk"]) => {
            let lines = asked.lines();
            let mut items = Vec::new();
            for pair in lines.chunks(2) {
                let id = pair[0]["index"]["_id"].as_str().unwrap().to_owned();
                items.push(json!({"index": {"_id": id, "status": 201}}));
                state.records.insert(id, (Vec::new(), pair[1].clone()));
            }
            (200, json!({"took": 1, "errors": false, "items": items}))
        }
        ("POST", ["_refresh"]) => {
            (200, json!({"_shards": {"total": 2, "successful": 1, "failed": 0}}))
        }
        ("GET", ["_count"]) => (
            200,
            json!({"count": state.records.len(), "_shards": {"total": 1, "successful": 1, "failed": 0}}),
        ),
        other => panic!("{other:?}"),
    }
}

/// Scores documents by the number of words that they share with the query.
fn msearch(state: &State, asked: &Asked) -> (u16, Value) {
    let lines = asked.lines();
    let words = |text: &str| -> Vec<String> {
        let letters = |word: &str| word.trim_matches(|c: char| !c.is_alphanumeric()).to_lowercase();
        text.split_whitespace().map(letters).collect()
    };
    let respond = |pair: &[Value]| {
        assert!(pair[0]["index"].is_string());
        let query = words(pair[1]["query"]["match"]["contents"]["query"].as_str().unwrap());
        let scored = state.records.iter().filter_map(|(id, (_, fields))| {
            let contents = words(fields["contents"].as_str().unwrap());
            let shared = query.iter().filter(|word| contents.contains(word)).count();
            (shared > 0).then_some((id, shared as f64, fields))
        });
        let hits: Vec<Value> = State::best(scored.collect(), &pair[1]["size"])
            .into_iter()
            .map(|(id, score, fields)| json!({"_id": id, "_score": score, "_source": fields}))
            .collect();
        json!({"took": 1, "timed_out": false, "status": 200, "hits": {"hits": hits},
               "_shards": {"total": 1, "successful": 1, "skipped": 0, "failed": 0}})
    };
    let responses: Vec<Value> = lines.chunks(2).map(respond).collect();
    (200, json!({"took": 1, "responses": responses}))
}
