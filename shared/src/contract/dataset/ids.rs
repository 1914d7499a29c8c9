//! Ids that differ: a repeated one gets the place of its row appended.

use std::collections::HashSet;

/// The ids of records that are read together.
#[derive(Clone, Debug, Default)]
pub struct Ids {
    used: HashSet<String>,
    repeated: usize,
    /// The first repeated id, and the one that took its place.
    first: Option<(String, String)>,
}

impl Ids {
    /// Returns the id of a record: its own if no earlier record has it, else the same with `place_id` behind it.
    /// The result depends only on the ids before it, so that it is the same whenever the files are.
    pub fn assign(&mut self, id: String, place_id: &str) -> String {
        if self.used.insert(id.clone()) {
            return id;
        }
        let mut own = format!("{id}-{place_id}");
        while !self.used.insert(own.clone()) {
            own.push('+');
        }
        self.repeated += 1;
        self.first.get_or_insert_with(|| (id, own.clone()));
        own
    }

    /// Returns the number of ids that were repeated, in words, if there are any.
    pub fn warning(&self) -> Option<String> {
        let (id, own) = self.first.as_ref()?;
        let count = self.repeated;
        let ids =
            if count == 1 { "1 id repeats".to_owned() } else { format!("{count} ids repeat") };
        Some(format!(
            "{ids} an earlier one and got the row's place behind it: the first, {id:?}, is now {own:?}"
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn repeated_ids_get_their_place() {
        let mut ids = Ids::default();
        let mut assign = |id: &str, place: &str| ids.assign(id.to_owned(), place);
        assert_eq!(assign("a", "row-1"), "a");
        assert_eq!(assign("a-row-3", "row-2"), "a-row-3");
        assert_eq!(assign("a", "row-3"), "a-row-3+");
        assert_eq!(assign("a", "row-4"), "a-row-4");
        let warning = ids.warning().unwrap();
        assert!(warning.starts_with("2 ids repeat an earlier one"), "{warning}");
        assert!(warning.ends_with("the first, \"a\", is now \"a-row-3+\""), "{warning}");
        assert_eq!(Ids::default().warning(), None);
    }
}
