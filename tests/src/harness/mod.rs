//! Parts that the tests share: services to start and stop, data for them, requests to send.

pub(crate) mod corpus;
pub(crate) mod fake_collector;
pub(crate) mod fake_engine;
pub(crate) mod fake_hub;
pub(crate) mod fake_searxng;
pub(crate) mod fake_vllm;
pub(crate) mod http;
pub(crate) mod program;
pub(crate) mod relay;
pub(crate) mod retriever;
pub(crate) mod run_dir;
pub(crate) mod tiny_model;
pub(crate) mod tiny_world;
pub(crate) mod trained;
pub(crate) mod wait;
