//! MLflow's tracking server over its REST API, version 2.0.

use std::sync::Arc;
use std::time::SystemTime;

use reqwest::{Method, StatusCode, header};
use serde_json::{Value, json};

use super::lane::Memory;
use super::point::unix_ms;
use super::server::{Answer, Server};
use super::{Fault, Outcome, Point, Run, Tracker};

/// The largest numbers that one request may have, by the API's documentation.
const METRICS_PER_REQUEST: usize = 1000;
const PARAMETERS_PER_REQUEST: usize = 100;
/// The longest value of a parameter that every version of the server takes.
const PARAMETER_CHARS: usize = 500;

pub(super) struct Mlflow {
    run: Run,
    server: Server,
    /// `true` once the server knows the run in this process.
    is_open: bool,
}

impl Mlflow {
    pub(super) fn new(run: Run, server: Server) -> Self {
        Self { run, server, is_open: false }
    }

    fn ask(&self, method: Method, path: &str, body: Option<&Value>) -> Result<Answer, Fault> {
        let token = (header::AUTHORIZATION, "Bearer ");
        self.server.ask(method, &format!("api/2.0/mlflow/{path}"), body, token)
    }

    fn post(&self, path: &str, body: &Value) -> Result<Value, Fault> {
        self.ask(Method::POST, path, Some(body))?.success()
    }

    /// Opens the run of an earlier process again, or creates it. Returns its identifier.
    fn open(&mut self, memory: &mut Memory) -> Result<String, Fault> {
        if let Some(id) = memory.server_id() {
            if self.is_open {
                return Ok(id.to_owned());
            }
            let body = json!({"run_id": id, "status": "RUNNING"});
            let answer = self.ask(Method::POST, "runs/update", Some(&body))?;
            if answer.status.is_success() {
                self.is_open = true;
                return Ok(id.to_owned());
            }
            if answer.status != StatusCode::NOT_FOUND {
                return Err(answer.fault());
            }
            // The server has lost the run, or is another one.
            memory.set_server_id(None);
        }
        let experiment = self.experiment()?;
        let created = self.post(
            "runs/create",
            &json!({
                "experiment_id": experiment,
                "run_name": self.run.name,
                "start_time": unix_ms(SystemTime::now()),
                "tags": [{"key": "run_dir", "value": self.run.folder.display().to_string()}],
            }),
        )?;
        let id = created["run"]["info"]["run_id"].as_str();
        let id =
            id.ok_or_else(|| Fault(format!("runs/create: no run_id in {created}")))?.to_owned();
        for parameters in self.run.parameters.chunks(PARAMETERS_PER_REQUEST) {
            let parameters: Vec<Value> = parameters
                .iter()
                .map(|(key, value)| {
                    let value: String = value.chars().take(PARAMETER_CHARS).collect();
                    json!({"key": key, "value": value})
                })
                .collect();
            self.post("runs/log-batch", &json!({"run_id": id, "params": parameters}))?;
        }
        memory.set_server_id(Some(id.clone()));
        self.is_open = true;
        Ok(id)
    }

    /// Returns the identifier of the experiment, which is created if it does not exist.
    fn experiment(&self) -> Result<String, Fault> {
        let name = &self.run.project;
        let find = || -> Result<Option<String>, Fault> {
            let encoded: String = url_encoded(name);
            let path = format!("experiments/get-by-name?experiment_name={encoded}");
            let answer = self.ask(Method::GET, &path, None)?;
            if answer.status == StatusCode::NOT_FOUND {
                return Ok(None);
            }
            let found = answer.success()?;
            let id = found["experiment"]["experiment_id"].as_str();
            let id = id.ok_or_else(|| Fault(format!("{path}: no experiment_id in {found}")))?;
            Ok(Some(id.to_owned()))
        };
        if let Some(id) = find()? {
            return Ok(id);
        }
        let answer = self.ask(Method::POST, "experiments/create", Some(&json!({"name": name})))?;
        match answer.body["experiment_id"].as_str() {
            Some(id) => Ok(id.to_owned()),
            // Another run has created it meanwhile.
            None => find()?.ok_or_else(|| answer.fault()),
        }
    }
}

/// Encodes a text for the query of an address.
fn url_encoded(text: &str) -> String {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.~".contains(&byte);
    let encode = |byte: u8| {
        if is_plain(byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") }
    };
    text.bytes().map(encode).collect()
}

impl Tracker for Mlflow {
    fn send(&mut self, points: &[Arc<Point>], memory: &mut Memory) -> Result<Option<u64>, Fault> {
        let id = self.open(memory)?;
        let metrics: Vec<Value> = points
            .iter()
            .flat_map(|point| {
                let (step, timestamp) = (point.step, point.unix_ms());
                point.values.iter().map(move |(key, value)| {
                    json!({"key": key, "value": value, "timestamp": timestamp, "step": step})
                })
            })
            .collect();
        for metrics in metrics.chunks(METRICS_PER_REQUEST) {
            self.post("runs/log-batch", &json!({"run_id": id, "metrics": metrics}))?;
        }
        Ok(points.last().map(|point| point.position()))
    }

    fn end(&mut self, outcome: Outcome, memory: &mut Memory) -> Result<(), Fault> {
        let id = self.open(memory)?;
        let status = match outcome {
            Outcome::Finished => "FINISHED",
            Outcome::Stopped => "KILLED",
            Outcome::Failed => "FAILED",
        };
        let end = unix_ms(SystemTime::now());
        let body = json!({"run_id": id, "status": status, "end_time": end});
        self.post("runs/update", &body).map(|_| ())
    }
}
