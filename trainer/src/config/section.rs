//! The macro that turns one declaration into a section's struct, its defaults and the table of its
//! keys, so that a key's type, default, range and meaning are written down once.

use super::environment::variable_of;
use super::value::{Range, RawValue, Rejection};

/// One configuration key as the reference page and the messages show it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeySpec {
    /// Empty for the keys before the first section.
    pub section: &'static str,
    pub key: &'static str,
    /// Unit of the value, empty where it has none.
    pub unit: &'static str,
    /// What it decides, in one line.
    pub meaning: String,
    /// What it takes, in words.
    pub accepts: String,
    /// As TOML; `None` where the key is not set unless it is given.
    pub default: Option<String>,
}

impl KeySpec {
    /// The dotted name that `--set` takes.
    pub fn path(&self) -> String {
        joined(self.section, self.key)
    }

    /// The name of the variable of the environment that sets it.
    pub fn variable(&self) -> String {
        variable_of(&self.path())
    }
}

/// `section.key`, or `key` alone outside any section.
pub(super) fn joined(section: &str, key: &str) -> String {
    if section.is_empty() { key.to_owned() } else { format!("{section}.{key}") }
}

/// Keys that are written together in the file.
pub(super) trait Section {
    fn name(&self) -> &'static str;
    /// What the section is about, in one line.
    fn meaning(&self) -> String;
    fn keys(&self) -> Vec<KeySpec>;
    /// Sets one key; `None` if there is no such key.
    fn set(&mut self, key: &str, raw: &RawValue) -> Option<Result<(), Rejection>>;
    /// The current value as TOML; `None` if unset or unknown.
    fn shown(&self, key: &str) -> Option<String>;
}

/// The unit that a key's declaration gives, or none.
pub(super) fn first_or_none(units: &[&'static str]) -> &'static str {
    units.first().copied().unwrap_or_default()
}

/// The range that a key's declaration gives, or none.
pub(super) fn first_or_any(ranges: &[Range]) -> Range {
    ranges.first().copied().unwrap_or(Range::ANY)
}

/// Joins the lines of a doc comment into one.
pub(super) fn one_line(lines: &[&str]) -> String {
    lines.iter().map(|line| line.trim()).collect::<Vec<_>>().join(" ").trim().to_owned()
}

/// `section! { /// meaning  pub struct NAME in "name" { /// meaning  key: Type ["unit"] = default,
/// range; } }`; unit and range are left out where there are none.
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
