//! A trackio server over its HTTP API, version 1.

use std::sync::Arc;

use reqwest::Method;
use reqwest::header::HeaderName;
use serde_json::{Map, Value, json};

use super::lane::Memory;
use super::server::Server;
use super::{Fault, Outcome, Point, Run, Tracker};

/// The header of the token that permits writing.
const TOKEN: HeaderName = HeaderName::from_static("x-trackio-write-token");

pub(super) struct Trackio {
    run: Run,
    server: Server,
}

impl Trackio {
    pub(super) fn new(run: Run, server: Server) -> Self {
        Self { run, server }
    }
}

impl Tracker for Trackio {
    fn send(&mut self, points: &[Arc<Point>], memory: &mut Memory) -> Result<Option<u64>, Fault> {
        let Run { project, name, id, parameters, .. } = &self.run;
        let config: Map<String, Value> = parameters
            .iter()
            .map(|(key, value)| (key.clone(), Value::from(value.as_str())))
            .collect();
        let logs: Vec<Value> = points
            .iter()
            .map(|point| {
                let values = point.values.iter().map(|(key, value)| (key.clone(), json!(value)));
                // The server stores an identifier once, so that a point may be sent again.
                let log_id = format!("{id}-{}-{}", memory.rollbacks(), point.position());
                json!({
                    "project": project,
                    "run": name,
                    "run_id": id,
                    "metrics": values.collect::<Map<String, Value>>(),
                    "step": point.step,
                    "config": config,
                    "log_id": log_id,
                })
            })
            .collect();
        let body = json!({"args": [], "kwargs": {"logs": logs, "hf_token": null}});
        let answer = self.server.ask(Method::POST, "api/bulk_log", Some(&body), (TOKEN, ""))?;
        // An error of the function may come with status 200.
        if answer.status.is_success() && !answer.body["error"].is_null() {
            return Err(answer.fault());
        }
        answer.success()?;
        Ok(points.last().map(|point| point.position()))
    }

    /// The server has no state of a run.
    fn end(&mut self, _outcome: Outcome, _memory: &mut Memory) -> Result<(), Fault> {
        Ok(())
    }
}
