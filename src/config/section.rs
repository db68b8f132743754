//! Declares the sections of the configuration: one macro makes the struct, its defaults, the check
//! of its ranges and its part of the reference, so that no key stands in two places.
//!
//! This module knows no section.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::de::value::StrDeserializer;
use serde::de::{self, Deserialize, Deserializer, IntoDeserializer, Visitor};

use super::error::Error;
use super::pattern::Pattern;
use super::range::KeyRange;
use super::secret::Secret;

/// One key, as the reference shows it.
pub(super) struct Key {
    /// The name of the key.
    pub(super) name: &'static str,
    /// The lines of its documentation.
    pub(super) doc: &'static [&'static str],
    /// The range of its values, or of their length.
    pub(super) range: Option<KeyRange>,
    /// The kind of its values, in words.
    pub(super) kind: String,
    /// The value in TOML; `None` if it is not written on one line or is absent.
    pub(super) value: Option<String>,
}

/// A key of a table that another module declares: its name, its kind, its default in TOML or "",
/// and the lines of its documentation.
pub(super) type ForeignKey = (&'static str, &'static str, &'static str, &'static [&'static str]);

impl Key {
    /// The entry of the reference for a key that another module declares.
    pub(super) fn foreign(row: &'static ForeignKey) -> Key {
        let (name, kind, default, doc) = row;
        let value = Some((*default).to_owned()).filter(|default| !default.is_empty());
        Key { name, doc, range: None, kind: (*kind).to_owned(), value }
    }
}

/// A table of the configuration.
pub(super) trait Section {
    /// The lines of the documentation of the section.
    fn title() -> &'static [&'static str];

    /// The keys in the order of the reference, with the values that they have here.
    fn keys(&self) -> Vec<Key>;

    /// Refuses numbers outside their range; the keys in errors are relative to the section.
    fn check_ranges(&self) -> Result<(), Error>;
}

/// A value of a key.
pub(super) trait ConfigType {
    /// The kind of the value, in words.
    fn kind() -> String;

    /// The value in TOML on one line, if it has one.
    fn toml(&self) -> Option<String>;

    /// The number that a range is for: the value, or its length.
    fn measure(&self) -> u64 {
        0
    }
}

/// Declares a section of which every key has a default, or, with `required`, one that has keys
/// without a default.
///
/// A key is `pub name: Type = default, unit(range);`, where the range is optional, and `as "word"`
/// after the name is another name in the file. The units are the constructors of [`KeyRange`].
/// Fields after `and` are not keys.
macro_rules! section {
    (
        $(#[doc = $title:literal])*
        $(#[derive($($derive:ident),*)])?
        pub struct $Config:ident {
            $(
                $(#[doc = $doc:literal])*
                $(#[serde($($serde:tt)*)])?
                pub $field:ident $(as $name:literal)?: $Type:ty = $default:expr
                    $(, $unit:ident($range:expr))?;
            )*
        }
        $(and {
            $($(#[doc = $skipped_doc:literal])* $vis:vis $skipped:ident: $Skipped:ty;)*
        })?
    ) => {
        $(#[doc = $title])*
        #[derive(Clone, Debug, PartialEq, Eq, serde::Deserialize)]
        $(#[derive($($derive),*)])?
        #[serde(default, deny_unknown_fields, expecting = "a table")]
        pub struct $Config {
            $(
                $(#[doc = $doc])*
                $(#[serde($($serde)*)])?
                $(#[serde(rename = $name)])?
                pub $field: $Type,
            )*
            $($($(#[doc = $skipped_doc])* #[serde(skip)] $vis $skipped: $Skipped,)*)?
        }

        impl Default for $Config {
            fn default() -> $Config {
                $Config {
                    $($field: $default,)*
                    $($($skipped: Default::default(),)*)?
                }
            }
        }

        $crate::config::section::describe! {
            $Config [$($title)*] $($field [$($name)?] $Type [$($doc)*] [$($unit($range))?])*
        }
    };
    (
        required
        $(#[doc = $title:literal])*
        pub struct $Config:ident {
            $(
                $(#[doc = $doc:literal])*
                $(#[serde($($serde:tt)*)])?
                pub $field:ident $(as $name:literal)?: $Type:ty $(, $unit:ident($range:expr))?;
            )*
        }
        $(and {
            $($(#[doc = $skipped_doc:literal])* $vis:vis $skipped:ident: $Skipped:ty;)*
        })?
    ) => {
        $(#[doc = $title])*
        #[derive(Clone, Debug, PartialEq, Eq, serde::Deserialize)]
        #[serde(deny_unknown_fields, expecting = "a table")]
        pub struct $Config {
            $(
                $(#[doc = $doc])*
                $(#[serde($($serde)*)])?
                $(#[serde(rename = $name)])?
                pub $field: $Type,
            )*
            $($($(#[doc = $skipped_doc])* #[serde(skip)] $vis $skipped: $Skipped,)*)?
        }

        $crate::config::section::describe! {
            $Config [$($title)*] $($field [$($name)?] $Type [$($doc)*] [$($unit($range))?])*
        }
    };
}

/// Implements [`Section`] for the struct of a section.
macro_rules! describe {
    (
        $Config:ident [$($title:literal)*]
        $($field:ident [$($name:literal)?] $Type:ty
            [$($doc:literal)*] [$($unit:ident($range:expr))?])*
    ) => {
        impl $crate::config::section::Section for $Config {
            fn title() -> &'static [&'static str] {
                &[$($title),*]
            }

            fn keys(&self) -> Vec<$crate::config::section::Key> {
                use $crate::config::section::{ConfigType, Key, key_name, key_range};
                vec![$(Key {
                    name: key_name!($field $($name)?),
                    doc: &[$($doc),*],
                    range: key_range!($($unit($range))?),
                    kind: <$Type as ConfigType>::kind(),
                    value: ConfigType::toml(&self.$field),
                },)*]
            }

            fn check_ranges(&self) -> Result<(), $crate::config::error::Error> {
                $($crate::config::section::key_check! {
                    $crate::config::section::key_name!($field $($name)?),
                    self.$field $(, $unit($range))?
                })*
                Ok(())
            }
        }

        impl $crate::config::section::ConfigType for $Config {
            fn kind() -> String {
                "table".to_owned()
            }

            fn toml(&self) -> Option<String> {
                $crate::config::section::inline(self)
            }
        }
    };
}

macro_rules! key_name {
    ($field:ident) => {
        stringify!($field)
    };
    ($field:ident $name:literal) => {
        $name
    };
}

macro_rules! key_range {
    () => {
        None
    };
    ($unit:ident($range:expr)) => {
        Some($crate::config::range::KeyRange::$unit($range))
    };
}

macro_rules! key_check {
    ($name:expr, $value:expr) => {};
    ($name:expr, $value:expr, $unit:ident($range:expr)) => {
        let found = $crate::config::section::ConfigType::measure(&$value);
        $crate::config::range::KeyRange::$unit($range).check($name, found)?;
    };
}

/// Implements [`ConfigType`] for enums, whose words come from their `Deserialize`.
macro_rules! words {
    ($($Type:ty),* $(,)?) => {$(
        impl $crate::config::section::ConfigType for $Type {
            fn kind() -> String {
                $crate::config::section::words_of::<$Type>().join(", ")
            }

            fn toml(&self) -> Option<String> {
                $crate::config::section::word_of(self)
            }
        }
    )*};
}

/// Implements [`ConfigType`] for types that the file has as a text.
macro_rules! texts {
    ($($Type:ty: $as_str:expr;)*) => {$(
        impl $crate::config::section::ConfigType for $Type {
            fn kind() -> String {
                "text".to_owned()
            }

            fn toml(&self) -> Option<String> {
                let as_str: fn(&$Type) -> String = $as_str;
                Some(format!("\"{}\"", as_str(self)))
            }

            fn measure(&self) -> u64 {
                let as_str: fn(&$Type) -> String = $as_str;
                as_str(self).chars().count() as u64
            }
        }
    )*};
}

pub(super) use {describe, key_check, key_name, key_range, section, texts, words};

/// A section as an inline table of the keys that are set; of all keys if none is.
pub(super) fn inline(section: &impl Section) -> Option<String> {
    let mut entries = entries(section);
    let is_set = |(_, value): &(&str, String)| !matches!(value.as_str(), "\"\"" | "[]" | "{}");
    if entries.iter().any(is_set) {
        entries.retain(is_set);
    }
    Some(join(&entries))
}

/// A section as an inline table of all keys.
pub(super) fn inline_all(section: &impl Section) -> String {
    join(&entries(section))
}

fn entries(section: &impl Section) -> Vec<(&'static str, String)> {
    section.keys().into_iter().filter_map(|key| Some((key.name, key.value?))).collect()
}

fn join(entries: &[(&str, String)]) -> String {
    let entries: Vec<_> = entries.iter().map(|(name, value)| format!("{name} = {value}")).collect();
    format!("{{ {} }}", entries.join(", "))
}

/// The words that an enum accepts, or the keys that a table accepts.
pub(super) fn words_of<'de, T: Deserialize<'de>>() -> Vec<&'static str> {
    /// Fails with the words of an enum, or the keys of a table.
    struct Probe;

    impl<'de> Deserializer<'de> for Probe {
        type Error = AcceptedWords;

        fn deserialize_any<V: Visitor<'de>>(self, _visitor: V) -> Result<V::Value, AcceptedWords> {
            Err(AcceptedWords(&[]))
        }

        fn deserialize_enum<V: Visitor<'de>>(
            self,
            _name: &'static str,
            variants: &'static [&'static str],
            _visitor: V,
        ) -> Result<V::Value, AcceptedWords> {
            Err(AcceptedWords(variants))
        }

        fn deserialize_struct<V: Visitor<'de>>(
            self,
            _name: &'static str,
            fields: &'static [&'static str],
            _visitor: V,
        ) -> Result<V::Value, AcceptedWords> {
            Err(AcceptedWords(fields))
        }

        serde::forward_to_deserialize_any! {
            bool i8 i16 i32 i64 u8 u16 u32 u64 f32 f64 char str string bytes byte_buf option unit
            unit_struct newtype_struct seq tuple tuple_struct map identifier ignored_any
        }
    }

    T::deserialize(Probe).err().map_or(Vec::new(), |words| words.0.to_vec())
}

#[derive(Debug)]
struct AcceptedWords(&'static [&'static str]);

impl std::fmt::Display for AcceptedWords {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0.join(", "))
    }
}

impl std::error::Error for AcceptedWords {}

impl de::Error for AcceptedWords {
    fn custom<T: std::fmt::Display>(_message: T) -> AcceptedWords {
        AcceptedWords(&[])
    }
}

/// The word for a value of an enum, in quotes.
pub(super) fn word_of<'de, T: Deserialize<'de> + PartialEq>(value: &T) -> Option<String> {
    let is_word = |word: &&&'static str| {
        let word: StrDeserializer<'static, Error> = (**word).into_deserializer();
        T::deserialize(word).is_ok_and(|it| it == *value)
    };
    words_of::<T>().iter().find(is_word).map(|word| format!("\"{word}\""))
}

impl ConfigType for bool {
    fn kind() -> String {
        "boolean".to_owned()
    }

    fn toml(&self) -> Option<String> {
        Some(self.to_string())
    }
}

macro_rules! numbers {
    ($($Type:ty),*) => {$(
        impl ConfigType for $Type {
            fn kind() -> String {
                "integer".to_owned()
            }

            fn toml(&self) -> Option<String> {
                Some(self.to_string())
            }

            fn measure(&self) -> u64 {
                *self as u64
            }
        }
    )*};
}

numbers!(u16, u32, u64, usize);

texts! {
    String: String::clone;
    Secret: |it| it.expose().to_owned();
    Pattern: |it| it.as_str().to_owned();
}

impl<T: ConfigType> ConfigType for Option<T> {
    fn kind() -> String {
        T::kind()
    }

    fn toml(&self) -> Option<String> {
        self.as_ref()?.toml()
    }
}

impl<T: ConfigType> ConfigType for Arc<T> {
    fn kind() -> String {
        T::kind()
    }

    fn toml(&self) -> Option<String> {
        T::toml(self)
    }
}

impl<T: ConfigType> ConfigType for Box<T> {
    fn kind() -> String {
        T::kind()
    }

    fn toml(&self) -> Option<String> {
        T::toml(self)
    }
}

impl<T: ConfigType> ConfigType for Vec<T> {
    fn kind() -> String {
        format!("list of {}", T::kind())
    }

    fn toml(&self) -> Option<String> {
        let entries: Option<Vec<String>> = self.iter().map(T::toml).collect();
        Some(format!("[{}]", entries?.join(", ")))
    }

    fn measure(&self) -> u64 {
        self.len() as u64
    }
}

impl<T: ConfigType> ConfigType for BTreeMap<String, T> {
    fn kind() -> String {
        format!("table of {}", T::kind())
    }

    fn toml(&self) -> Option<String> {
        if self.is_empty() {
            return Some("{}".to_owned());
        }
        let entry = |(name, value): (&String, &T)| Some(format!("{name} = {}", value.toml()?));
        let entries: Option<Vec<String>> = self.iter().map(entry).collect();
        Some(format!("{{ {} }}", entries?.join(", ")))
    }

    fn measure(&self) -> u64 {
        self.len() as u64
    }
}
