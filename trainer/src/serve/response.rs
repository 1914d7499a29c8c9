//! Builds completions, whole or as a stream of chunks.

use serde_json::{Value, json};
use shared::contract::passage::Passage;

use super::conversations::{AgentEvent, Finished};
use crate::rollout::EndReason;

/// The fields that every part of an answer repeats.
#[derive(Clone, Debug)]
pub(super) struct Heading {
    pub(super) id: String,
    /// Seconds since 1970.
    pub(super) created: u64,
    pub(super) model: String,
    pub(super) ignored_messages: usize,
}

/// An answer under construction.
#[derive(Clone, Debug, Default)]
pub(super) struct Completion {
    content: String,
    reasoning: String,
    /// Searches and their passages, in order.
    events: Vec<Value>,
}

impl Completion {
    pub(super) fn add(&mut self, event: &AgentEvent) {
        match event {
            AgentEvent::Thought(text) => self.reasoning.push_str(text),
            AgentEvent::Answer(text) => self.content.push_str(text),
            other => self.events.extend(search_event(other)),
        }
    }

    pub(super) fn body(&self, heading: &Heading, finished: Finished) -> Value {
        json!({
            "id": heading.id, "object": "chat.completion", "created": heading.created,
            "model": heading.model,
            "choices": [{
                "index": 0,
                "message": {
                    "role": "assistant",
                    "content": self.content.trim(),
                    "reasoning_content": self.reasoning.trim(),
                },
                "logprobs": null,
                "finish_reason": finish_reason(finished.end),
            }],
            "usage": usage(finished),
            "search_r1": {
                "events": self.events,
                "end": finished.end,
                "ignored_messages": heading.ignored_messages,
            },
        })
    }
}

/// Returns the chunk of an event, or `None` for an event that ends the stream.
pub(super) fn event_chunk(heading: &Heading, event: &AgentEvent) -> Option<Value> {
    match event {
        AgentEvent::Thought(text) => {
            Some(chunk(heading, &json!({"reasoning_content": text}), None))
        }
        AgentEvent::Answer(text) => Some(chunk(heading, &json!({"content": text}), None)),
        other => {
            let event = search_event(other)?;
            let mut chunk = chunk(heading, &json!({}), None);
            chunk["search_r1"] = event;
            Some(chunk)
        }
    }
}

/// Returns the first chunk of a stream.
pub(super) fn first_chunk(heading: &Heading) -> Value {
    chunk(heading, &json!({"role": "assistant", "content": ""}), None)
}

/// Returns the chunk with the reason of the end.
pub(super) fn last_chunk(heading: &Heading, finished: Finished) -> Value {
    let mut chunk = chunk(heading, &json!({}), Some(finish_reason(finished.end)));
    chunk["search_r1"] = json!({
        "type": "end", "end": finished.end, "ignored_messages": heading.ignored_messages,
    });
    chunk
}

/// Returns the chunk with the usage, which has no choices.
pub(super) fn usage_chunk(heading: &Heading, finished: Finished) -> Value {
    let mut chunk = chunk(heading, &json!({}), None);
    chunk["choices"] = json!([]);
    chunk["usage"] = usage(finished);
    chunk
}

fn chunk(heading: &Heading, delta: &Value, finish_reason: Option<&str>) -> Value {
    json!({
        "id": heading.id, "object": "chat.completion.chunk", "created": heading.created,
        "model": heading.model,
        "choices": [{"index": 0, "delta": delta, "finish_reason": finish_reason}],
    })
}

/// Returns a search or its passages as JSON; OpenAI's protocol has no field for them.
fn search_event(event: &AgentEvent) -> Option<Value> {
    match event {
        AgentEvent::Searching { query } => Some(json!({"type": "search", "query": query})),
        AgentEvent::Found { passages } => {
            let passages: Vec<Value> = passages.iter().map(passage).collect();
            Some(json!({"type": "passages", "passages": passages}))
        }
        AgentEvent::Thought(_)
        | AgentEvent::Answer(_)
        | AgentEvent::SearchFailed { .. }
        | AgentEvent::Finished(_) => None,
    }
}

fn passage(passage: &Passage) -> Value {
    let (title, text) = passage.title_and_text();
    json!({"id": passage.id, "title": title, "text": text, "url": passage.url})
}

/// Returns OpenAI's reason: `length` for every end without an answer, whichever limit caused it.
fn finish_reason(end: EndReason) -> &'static str {
    match end {
        EndReason::Answered => "stop",
        EndReason::TurnLimit | EndReason::ContextLimit | EndReason::SearchFailed => "length",
    }
}

fn usage(finished: Finished) -> Value {
    let prompt = finished.prompt_tokens + finished.given_tokens;
    json!({
        "prompt_tokens": prompt,
        "completion_tokens": finished.sampled_tokens,
        "total_tokens": prompt + finished.sampled_tokens,
    })
}
