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
pub struct Key {
    /// The name of the key.
    pub name: &'static str,
    /// The lines of its documentation.
    pub doc: &'static [&'static str],
    /// The range of its values, or of their length.
    pub range: Option<KeyRange>,
    /// The kind of its values, in words.
    pub kind: String,
    /// The value in TOML; `None` if it is not written on one line or is absent.
    pub value: Option<String>,
    /// Whether the key must be in the file.
    pub is_required: bool,
    /// The keys of the table that the value is, or has as its entries.
    pub table: Option<Vec<Key>>,
}

/// A table of the configuration.
pub trait Section {
    /// The lines of the documentation of the section.
    fn title() -> &'static [&'static str];

    /// The keys in the order of the reference, with the values that they have here.
    fn keys(&self) -> Vec<Key>;

    /// Refuses numbers outside their range; the keys in errors are relative to the section.
    fn check_ranges(&self) -> Result<(), Error>;
}

/// A value of a key.
pub trait ConfigType {
    /// The kind of the value, in words.
    fn kind() -> String;

    /// The value in TOML on one line, if it has one.
    fn toml(&self) -> Option<String>;

    /// The number that a range is for: the value, or its length. A value that is not given is in
    /// every range.
    fn measure(&self) -> Option<u64> {
        None
    }

    /// The keys of the table that the value is, or has as its entries, with the values that they
    /// have in `value`; `None` if there is no such table.
    fn table(value: Option<&Self>) -> Option<Vec<Key>> {
        let _ = value;
        None
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

        $crate::settings::section::describe! {
            $Config [$($title)*]
            $($field [$($name)?] $Type [$($doc)*] [default] [$($unit($range))?])*
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

        $crate::settings::section::describe! {
            $Config [$($title)*]
            $($field [$($name)?] $Type [$($doc)*] [$($($serde)*)?] [$($unit($range))?])*
        }
    };
}

/// Implements [`Section`] for the struct of a section.
macro_rules! describe {
    (
        $Config:ident [$($title:literal)*]
        $($field:ident [$($name:literal)?] $Type:ty
            [$($doc:literal)*] [$($serde:tt)*] [$($unit:ident($range:expr))?])*
    ) => {
        impl $crate::settings::section::Section for $Config {
            fn title() -> &'static [&'static str] {
                &[$($title),*]
            }

            fn keys(&self) -> Vec<$crate::settings::section::Key> {
                use $crate::settings::section::{ConfigType, Key, key_name, key_range};
                vec![$(Key {
                    name: key_name!($field $($name)?),
                    doc: &[$($doc),*],
                    range: key_range!($($unit($range))?),
                    kind: <$Type as ConfigType>::kind(),
                    value: ConfigType::toml(&self.$field),
                    is_required: !stringify!($($serde)*).starts_with("default"),
                    table: ConfigType::table(Some(&self.$field)),
                },)*]
            }

            fn check_ranges(&self) -> Result<(), $crate::settings::error::Error> {
                $($crate::settings::section::key_check! {
                    $crate::settings::section::key_name!($field $($name)?),
                    self.$field $(, $unit($range))?
                })*
                Ok(())
            }
        }

        impl $crate::settings::section::ConfigType for $Config {
            fn kind() -> String {
                "table".to_owned()
            }

            fn toml(&self) -> Option<String> {
                $crate::settings::section::inline(self)
            }

            fn table(value: Option<&$Config>) -> Option<Vec<$crate::settings::section::Key>> {
                value.map($crate::settings::section::Section::keys)
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
        Some($crate::settings::range::KeyRange::$unit($range))
    };
}

macro_rules! key_check {
    ($name:expr, $value:expr) => {};
    ($name:expr, $value:expr, $unit:ident($range:expr)) => {
        if let Some(found) = $crate::settings::section::ConfigType::measure(&$value) {
            $crate::settings::range::KeyRange::$unit($range).check($name, found)?;
        }
    };
}

/// Implements [`ConfigType`] for enums, whose words come from their `Deserialize`.
macro_rules! words {
    ($($Type:ty),* $(,)?) => {$(
        impl $crate::settings::section::ConfigType for $Type {
            fn kind() -> String {
                $crate::settings::section::words_of::<$Type>().join(", ")
            }

            fn toml(&self) -> Option<String> {
                $crate::settings::section::word_of(self)
            }
        }
    )*};
}

/// Implements [`ConfigType`] for types that the file has as a text.
macro_rules! texts {
    ($($Type:ty: $as_str:expr;)*) => {$(
        impl $crate::settings::section::ConfigType for $Type {
            fn kind() -> String {
                "text".to_owned()
            }

            fn toml(&self) -> Option<String> {
                let as_str: fn(&$Type) -> String = $as_str;
                Some(format!("\"{}\"", as_str(self)))
            }

            fn measure(&self) -> Option<u64> {
                let as_str: fn(&$Type) -> String = $as_str;
                Some(as_str(self).chars().count() as u64)
            }
        }
    )*};
}

pub(crate) use {describe, key_check, key_name, key_range, section, texts, words};

/// A section as an inline table of the keys that are set; of all keys if none is.
pub fn inline(section: &impl Section) -> Option<String> {
    let mut entries = entries(section);
    let is_set = |(_, value): &(&str, String)| !matches!(value.as_str(), "\"\"" | "[]" | "{}");
    if entries.iter().any(is_set) {
        entries.retain(is_set);
    }
    Some(join(&entries))
}

/// A section as an inline table of all keys.
pub fn inline_all(section: &impl Section) -> String {
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
pub fn words_of<'de, T: Deserialize<'de>>() -> Vec<&'static str> {
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
pub fn word_of<'de, T: Deserialize<'de> + PartialEq>(value: &T) -> Option<String> {
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

            fn measure(&self) -> Option<u64> {
                Some(*self as u64)
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

    fn table(value: Option<&Option<T>>) -> Option<Vec<Key>> {
        T::table(value.and_then(Option::as_ref))
    }

    fn toml(&self) -> Option<String> {
        self.as_ref()?.toml()
    }

    fn measure(&self) -> Option<u64> {
        self.as_ref()?.measure()
    }
}

impl<T: ConfigType> ConfigType for Arc<T> {
    fn kind() -> String {
        T::kind()
    }

    fn table(value: Option<&Arc<T>>) -> Option<Vec<Key>> {
        T::table(value.map(|it| &**it))
    }

    fn toml(&self) -> Option<String> {
        T::toml(self)
    }
}

impl<T: ConfigType> ConfigType for Box<T> {
    fn kind() -> String {
        T::kind()
    }

    fn table(value: Option<&Box<T>>) -> Option<Vec<Key>> {
        T::table(value.map(|it| &**it))
    }

    fn toml(&self) -> Option<String> {
        T::toml(self)
    }
}

impl<T: ConfigType> ConfigType for Vec<T> {
    fn kind() -> String {
        format!("list of {}", T::kind())
    }

    fn table(value: Option<&Vec<T>>) -> Option<Vec<Key>> {
        T::table(value.and_then(|it| it.first()))
    }

    fn toml(&self) -> Option<String> {
        let entries: Option<Vec<String>> = self.iter().map(T::toml).collect();
        Some(format!("[{}]", entries?.join(", ")))
    }

    fn measure(&self) -> Option<u64> {
        Some(self.len() as u64)
    }
}

impl<T: ConfigType> ConfigType for BTreeMap<String, T> {
    fn kind() -> String {
        format!("table of {}", T::kind())
    }

    fn table(value: Option<&BTreeMap<String, T>>) -> Option<Vec<Key>> {
        T::table(value.and_then(|it| it.values().next()))
    }

    fn toml(&self) -> Option<String> {
        if self.is_empty() {
            return Some("{}".to_owned());
        }
        let entry = |(name, value): (&String, &T)| Some(format!("{name} = {}", value.toml()?));
        let entries: Option<Vec<String>> = self.iter().map(entry).collect();
        Some(format!("{{ {} }}", entries?.join(", ")))
    }

    fn measure(&self) -> Option<u64> {
        Some(self.len() as u64)
    }
}
