//! Pages: the passages of a corpus by the addresses that they have. The table is made when the first page is asked
//! for, since few clients do and it reads every passage.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use tracing::{error, info};

use super::store::PassageStore;
use crate::query::SearchFault;

/// The most passages between two looks at the time that is left.
const PASSAGES_PER_LOOK: u32 = 4096;

/// A page of the corpus.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Page {
    /// The contents of its passages in the order of the corpus, with an empty line between two.
    pub contents: String,
}

/// The passages of a corpus by their addresses.
#[derive(Debug)]
pub struct Pages {
    passages: Arc<PassageStore>,
    /// The hash of each passage's address with its row, sorted.
    table: OnceLock<Vec<(u64, u32)>>,
    /// Held by the one who makes the table.
    making: Mutex<()>,
}

impl Pages {
    /// Creates the pages of a corpus, without the table.
    pub fn new(passages: Arc<PassageStore>) -> Self {
        Self { passages, table: OnceLock::new(), making: Mutex::new(()) }
    }

    /// Returns the page at an address, if there is one. The first call reads the whole corpus; a call whose
    /// request `is_over` ends.
    pub fn get(&self, url: &str, is_over: &dyn Fn() -> bool) -> Result<Option<Page>, SearchFault> {
        let table = self.table(is_over)?;
        let hash = hash_of(url);
        let start = table.partition_point(|(other, _)| *other < hash);
        let mut contents = String::new();
        for (_, row) in table[start..].iter().take_while(|(other, _)| *other == hash) {
            let passage = self.passages.get(*row).map_err(|fault| {
                error!(%fault, row, "a passage could not be read");
                SearchFault::Internal
            })?;
            if passage.url.as_deref() == Some(url) {
                if !contents.is_empty() {
                    contents.push_str("\n\n");
                }
                contents.push_str(&passage.contents);
            }
        }
        Ok(Some(Page { contents }).filter(|page| !page.contents.is_empty()))
    }

    fn table(&self, is_over: &dyn Fn() -> bool) -> Result<&Vec<(u64, u32)>, SearchFault> {
        // The table is set whole or not at all, so a poisoned lock guards nothing that is broken.
        let _making = match self.table.get() {
            Some(table) => return Ok(table),
            None => self.making.lock().unwrap_or_else(PoisonError::into_inner),
        };
        if self.table.get().is_none() {
            let table = self.make_table(is_over)?;
            info!(passages = table.len(), "the addresses of passages are read");
            let _ = self.table.set(table);
        }
        Ok(self.table.get().expect("it was just set"))
    }

    fn make_table(&self, is_over: &dyn Fn() -> bool) -> Result<Vec<(u64, u32)>, SearchFault> {
        let mut table = Vec::new();
        for row in 0..self.passages.len() as u32 {
            if row % PASSAGES_PER_LOOK == 0 && is_over() {
                return Err(SearchFault::DeadlineExceeded);
            }
            let passage = self.passages.get(row).map_err(|fault| {
                error!(%fault, row, "a passage could not be read");
                SearchFault::Internal
            })?;
            if let Some(url) = &passage.url {
                table.push((hash_of(url), row));
            }
        }
        table.sort_unstable();
        table.shrink_to_fit();
        Ok(table)
    }
}

fn hash_of(url: &str) -> u64 {
    let mut hasher = DefaultHasher::new();
    url.hash(&mut hasher);
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use shared::contract::passage::Passage;

    use super::*;
    use crate::corpus::store::PassageWriter;

    #[test]
    fn a_page_is_all_passages_of_its_address() {
        let folder = tempfile::tempdir().unwrap();
        let mut writer = PassageWriter::create(folder.path()).unwrap();
        for (id, url) in [("1", Some("a")), ("2", None), ("3", Some("b")), ("4", Some("a"))] {
            let (id, url) = (id.to_owned(), url.map(str::to_owned));
            let contents = format!("text {id}");
            writer.add(&Passage { id, contents, url, ..Passage::default() }).unwrap();
        }
        writer.finish().unwrap();
        let pages = Pages::new(Arc::new(PassageStore::open(folder.path()).unwrap()));
        // A request that has no time left leaves the table to the next one.
        assert_eq!(pages.get("a", &|| true), Err(SearchFault::DeadlineExceeded));
        let page = |contents: &str| Some(Page { contents: contents.to_owned() });
        for (url, expected) in
            [("a", page("text 1\n\ntext 4")), ("b", page("text 3")), ("c", None), ("", None)]
        {
            assert_eq!(pages.get(url, &|| false).unwrap(), expected, "{url}");
        }
    }
}
