//! The macro that makes a section's struct, defaults and table of keys from one declaration, so that each key's
//! type, default, range and meaning are written in one place.

use super::environment::variable_of;
use super::value::{Range, RawValue, Rejection};

/// A configuration key as the reference page and the messages show it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeySpec {
    /// Name of the section; empty for keys before the first one.
    pub section: &'static str,
    pub key: &'static str,
    /// Unit of the value; empty if it has none.
    pub unit: &'static str,
    /// Effect of the key, in one line.
    pub meaning: String,
    /// Accepted values, in words.
    pub accepts: String,
    /// Default as TOML; `None` if the key has no default.
    pub default: Option<String>,
}

impl KeySpec {
    /// Returns the dotted name that `--set` takes.
    pub fn path(&self) -> String {
        joined(self.section, self.key)
    }

    /// Returns the name of the environment variable that sets the key.
    pub fn variable(&self) -> String {
        variable_of(&self.path())
    }
}

/// Returns `section.key`, or `key` alone if it is in no section.
pub(super) fn joined(section: &str, key: &str) -> String {
    if section.is_empty() { key.to_owned() } else { format!("{section}.{key}") }
}

/// A group of keys in the file.
pub(super) trait Section {
    fn name(&self) -> &'static str;
    /// Returns the subject of the section, in one line.
    fn meaning(&self) -> String;
    fn keys(&self) -> Vec<KeySpec>;
    /// Sets one key. Returns `None` if there is no such key.
    fn set(&mut self, key: &str, raw: &RawValue) -> Option<Result<(), Rejection>>;
    /// Returns the current value as TOML, or `None` if the key is unset or unknown.
    fn shown(&self, key: &str) -> Option<String>;
}

/// Returns the unit in a key's declaration, or an empty one.
pub(super) fn first_or_none(units: &[&'static str]) -> &'static str {
    units.first().copied().unwrap_or_default()
}

/// Returns the range in a key's declaration, or the range of all numbers.
pub(super) fn first_or_any(ranges: &[Range]) -> Range {
    ranges.first().copied().unwrap_or(Range::ANY)
}

/// Joins the lines of a doc comment into one.
pub(super) fn one_line(lines: &[&str]) -> String {
    lines.iter().map(|line| line.trim()).collect::<Vec<_>>().join(" ").trim().to_owned()
}

/// `section! { /// meaning  pub struct NAME in "name" { /// meaning  key: Type ["unit"] = default,
/// range; } }`. Unit and range are optional.
macro_rules! section {
    (
        $(#[doc = $about:literal])+
        pub struct $name:ident in $section:literal {
            $(
                $(#[doc = $doc:literal])+
                $key:ident: $type:ty $([$unit:literal])? = $default:expr $(, $range:expr)?;
            )+
        }
        $( sections { $( $sub:ident: $subtype:ty, )+ } )?
    ) => {
        $(#[doc = $about])+
        #[derive(Clone, Debug, PartialEq)]
        pub struct $name {
            $( $(#[doc = $doc])+ pub $key: $type, )+
            $( $(
                #[doc = concat!("The section `[", stringify!($sub), "]`.")]
                pub $sub: $subtype,
            )+ )?
        }

        impl Default for $name {
            fn default() -> Self {
                Self { $( $key: $default, )+ $( $( $sub: <$subtype>::default(), )+ )? }
            }
        }

        $( impl $name {
            /// Returns every section in file order, beginning with the keys before the first one.
            pub(super) fn sections(&self) -> Vec<&dyn $crate::config::section::Section> {
                vec![self, $(&self.$sub),+]
            }

            /// Returns the section called `name`, if there is one.
            pub(super) fn section_mut(
                &mut self,
                name: &str,
            ) -> Option<&mut dyn $crate::config::section::Section> {
                if name == $section {
                    return Some(self);
                }
                let sections: Vec<&mut dyn $crate::config::section::Section> =
                    vec![$(&mut self.$sub),+];
                sections.into_iter().find(|section| section.name() == name)
            }
        } )?

        impl $crate::config::section::Section for $name {
            fn name(&self) -> &'static str {
                $section
            }

            fn meaning(&self) -> String {
                $crate::config::section::one_line(&[$($about),+])
            }

            fn keys(&self) -> Vec<$crate::config::KeySpec> {
                let defaults = Self::default();
                vec![$({
                    let range = $crate::config::section::first_or_any(&[$($range)?]);
                    $crate::config::KeySpec {
                        section: $section,
                        key: stringify!($key),
                        unit: $crate::config::section::first_or_none(&[$($unit)?]),
                        meaning: $crate::config::section::one_line(&[$($doc),+]),
                        accepts: <$type as $crate::config::value::ConfigValue>::accepts(&range),
                        default: $crate::config::value::ConfigValue::to_toml(&defaults.$key),
                    }
                }),+]
            }

            fn set(
                &mut self,
                key: &str,
                raw: &$crate::config::value::RawValue,
            ) -> Option<Result<(), $crate::config::value::Rejection>> {
                match key {
                    $( stringify!($key) => {
                        let range = $crate::config::section::first_or_any(&[$($range)?]);
                        let parsed = $crate::config::value::ConfigValue::parse(raw, &range);
                        Some(parsed.map(|value| self.$key = value))
                    } )+
                    _ => None,
                }
            }

            fn shown(&self, key: &str) -> Option<String> {
                match key {
                    $( stringify!($key) => {
                        $crate::config::value::ConfigValue::to_toml(&self.$key)
                    } )+
                    _ => None,
                }
            }
        }
    };
}

pub(super) use section;
