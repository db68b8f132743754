//! Reads a YAML document into a tree.

use std::fmt;

use serde::de::{self, Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};

use super::tree::{ConfigKey, ConfigValue, Node, one_line};
use crate::settings::error::{Error, Position, Problem};

/// Reads a YAML document.
pub(super) fn from_yaml(text: &str) -> Result<Node, Error> {
    let options = serde_saphyr::options! {
        strict_booleans: true,
        with_snippet: false,
    };
    serde_saphyr::from_str_with_options(text, options).map_err(|error| {
        let position = error.location().and_then(yaml_position);
        Error::at(Problem::Syntax(one_line(&yaml_message(&error))), position)
    })
}

/// The error message without the position that the library appends, since the error has it already.
fn yaml_message(error: &serde_saphyr::Error) -> String {
    let mut text = error.render_with_formatter(&serde_saphyr::UserMessageFormatter);
    if let Some(at) = error.location() {
        let place = format!("line {}, column {}", at.line(), at.column());
        if let Some(cut) = text.rfind(&place) {
            text.truncate(cut);
        }
    }
    text.trim_end_matches([' ', '(']).trim_end_matches(" at").to_owned()
}

fn yaml_position(location: serde_saphyr::Location) -> Option<Position> {
    let line = usize::try_from(location.line()).ok().filter(|line| *line > 0)?;
    Some(Position { line, column: usize::try_from(location.column()).ok()?.max(1) })
}

impl<'de> Deserialize<'de> for Node {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Node, D::Error> {
        let spanned = serde_saphyr::Spanned::<ConfigValue>::deserialize(deserializer)?;
        Ok(Node { position: yaml_position(spanned.referenced), value: spanned.value })
    }
}

impl<'de> Deserialize<'de> for ConfigKey {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<ConfigKey, D::Error> {
        let spanned = serde_saphyr::Spanned::<String>::deserialize(deserializer)?;
        Ok(ConfigKey { position: yaml_position(spanned.referenced), name: spanned.value })
    }
}

impl<'de> Deserialize<'de> for ConfigValue {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<ConfigValue, D::Error> {
        deserializer.deserialize_any(ValueVisitor)
    }
}

struct ValueVisitor;

impl<'de> Visitor<'de> for ValueVisitor {
    type Value = ConfigValue;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value")
    }

    fn visit_unit<E>(self) -> Result<ConfigValue, E> {
        Ok(ConfigValue::Null)
    }

    fn visit_none<E>(self) -> Result<ConfigValue, E> {
        Ok(ConfigValue::Null)
    }

    fn visit_bool<E>(self, truth: bool) -> Result<ConfigValue, E> {
        Ok(ConfigValue::Bool(truth))
    }

    fn visit_i64<E>(self, number: i64) -> Result<ConfigValue, E> {
        Ok(ConfigValue::Int(number.into()))
    }

    fn visit_u64<E>(self, number: u64) -> Result<ConfigValue, E> {
        Ok(ConfigValue::Int(number.into()))
    }

    fn visit_i128<E>(self, number: i128) -> Result<ConfigValue, E> {
        Ok(ConfigValue::Int(number))
    }

    fn visit_u128<E>(self, number: u128) -> Result<ConfigValue, E> {
        Ok(ConfigValue::Int(number.try_into().unwrap_or(i128::MAX)))
    }

    fn visit_f64<E>(self, number: f64) -> Result<ConfigValue, E> {
        Ok(ConfigValue::Float(number))
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<ConfigValue, E> {
        Ok(ConfigValue::Text(text.to_owned()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut entries: A) -> Result<ConfigValue, A::Error> {
        let mut list = Vec::new();
        while let Some(entry) = entries.next_element()? {
            list.push(entry);
        }
        Ok(ConfigValue::List(list))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<ConfigValue, A::Error> {
        let mut table = Vec::new();
        while let Some(entry) = entries.next_entry()? {
            table.push(entry);
        }
        Ok(ConfigValue::Table(table))
    }
}
