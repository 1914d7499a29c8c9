//! Search of the web through providers. It turns a query into results, or into the reason why there are
//! none; no result and no answer stay different. It knows nothing of requests to this server.
//!
//! In reading order: results as all providers give them ([`result`]), the length of queries ([`clip`]), the
//! shape of a provider ([`provider`]) and the providers themselves ([`providers`]), expenses ([`budget`]),
//! [`settings`], the cache (`cache`) with its file (`store`), the pages behind results ([`pages`]), and the
//! search over all of them ([`search`]).

pub mod result;
pub mod clip;
pub mod provider;
pub mod providers;
pub mod budget;
pub mod settings;
mod store;
mod cache;
pub mod pages;
pub mod search;

#[cfg(test)]
mod tests;
