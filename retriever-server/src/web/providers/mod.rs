//! The providers, one in each file. What their pages say, and when that was read, is in docs/web-search.md.

mod serper;
mod brave;
mod tavily;
mod exa;
mod serpapi;
mod searxng;
mod you;
mod jina;
mod google;
mod bing;

use super::provider::Provider;

/// All providers, in the order of the reference page.
pub const PROVIDERS: [&Provider; 10] = [
    &serper::SERPER,
    &brave::BRAVE,
    &tavily::TAVILY,
    &exa::EXA,
    &serpapi::SERPAPI,
    &searxng::SEARXNG,
    &you::YOU,
    &jina::JINA,
    &google::GOOGLE,
    &bing::BING,
];

/// Returns the provider with this name.
pub fn named(name: &str) -> Option<&'static Provider> {
    PROVIDERS.into_iter().find(|provider| provider.name == name)
}
