//! Reads the document tree into typed sections: a `serde` deserializer that expands variables and
//! adds positions to errors.

use serde::Deserialize;
use serde::de::value::StrDeserializer;
use serde::de::{self, DeserializeSeed, Deserializer, IntoDeserializer, MapAccess, SeqAccess};
use serde::de::{Unexpected, Visitor};

use super::env::{References, text_of};
use super::tree::{ConfigKey, ConfigValue, Node, from_inline_toml};
use crate::settings::error::{Error, Problem};

/// Reads `node` as a `T`. An error has the path of its key relative to `node`, and its position.
pub(super) fn read<'de, T: Deserialize<'de>>(
    node: &Node,
    references: &References<'_>,
) -> Result<T, Error> {
    T::deserialize(Reader { node, references })
}

#[derive(Clone, Copy)]
struct Reader<'a> {
    node: &'a Node,
    references: &'a References<'a>,
}

impl Reader<'_> {
    /// The text with its variables expanded, if the value is a text.
    fn text(&self) -> Result<Option<String>, Error> {
        text_of(self.node, self.references).map_err(Error::new)
    }

    /// The value of a variable that is written as a TOML array or inline table.
    fn inline(&self) -> Result<Option<Node>, Error> {
        let ConfigValue::Given(text) = &self.node.value else { return Ok(None) };
        if !text.trim_start().starts_with(['[', '{']) {
            return Ok(None);
        }
        let inline = from_inline_toml(text.trim());
        inline.map(Some).map_err(|problem| Error::new(Problem::Inline(problem)))
    }

    fn unexpected(&self) -> Unexpected<'_> {
        match &self.node.value {
            ConfigValue::Null => Unexpected::Unit,
            ConfigValue::Bool(truth) => Unexpected::Bool(*truth),
            ConfigValue::Int(_) => Unexpected::Signed(0),
            ConfigValue::Float(number) => Unexpected::Float(*number),
            ConfigValue::Text(text) | ConfigValue::Literal(text) | ConfigValue::Given(text) => {
                Unexpected::Str(text)
            }
            ConfigValue::List(_) => Unexpected::Seq,
            ConfigValue::Table(_) => Unexpected::Map,
        }
    }

    /// A value whose type the reader does not know. A variable may have an array or table.
    fn any<'de, V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        match self.inline()? {
            Some(node) => Reader { node: &node, ..self }.plain(visitor),
            None => self.plain(visitor),
        }
    }

    /// A value as it is written.
    fn plain<'de, V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        match &self.node.value {
            ConfigValue::Null => visitor.visit_unit(),
            ConfigValue::Bool(truth) => visitor.visit_bool(*truth),
            ConfigValue::Int(number) => visit_integer(*number, visitor),
            ConfigValue::Float(number) => visitor.visit_f64(*number),
            ConfigValue::Text(_) | ConfigValue::Literal(_) | ConfigValue::Given(_) => {
                visitor.visit_string(self.text()?.unwrap_or_default())
            }
            ConfigValue::List(entries) => {
                visitor.visit_seq(List { reader: self, entries, next: 0 })
            }
            ConfigValue::Table(entries) => {
                visitor.visit_map(Table { reader: self, entries, value: None })
            }
        }
    }

    /// A boolean or number may also be written as a string, so that a variable can supply it.
    fn bool<'de, V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        match self.text()?.as_deref() {
            Some("true") => visitor.visit_bool(true),
            Some("false") => visitor.visit_bool(false),
            _ => self.plain(visitor),
        }
    }

    fn integer<'de, V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        match self.text()?.and_then(|text| text.parse().ok()) {
            Some(number) => visit_integer(number, visitor),
            None => self.plain(visitor),
        }
    }

    fn float<'de, V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        match self.text()?.and_then(|text| text.parse().ok()) {
            Some(number) => visitor.visit_f64(number),
            None => self.plain(visitor),
        }
    }

    fn word<'de, V: Visitor<'de>>(
        self,
        accepted: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Error> {
        match self.text()? {
            Some(word) => {
                let word: de::value::StringDeserializer<Error> = word.into_deserializer();
                visitor.visit_enum(word)
            }
            None => {
                let expected = format!("one of {}", accepted.join(", "));
                Err(de::Error::invalid_type(self.unexpected(), &expected.as_str()))
            }
        }
    }

    /// A section without entries is `null` in YAML. A list is refused, because `serde` would read
    /// its entries as the section's values in order.
    fn table<'de, V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        if let Some(node) = self.inline()? {
            return Reader { node: &node, ..self }.table(visitor);
        }
        let entries = match &self.node.value {
            ConfigValue::Table(entries) => entries.as_slice(),
            ConfigValue::Null => &[],
            _ => return Err(de::Error::invalid_type(self.unexpected(), &visitor)),
        };
        visitor.visit_map(Table { reader: self, entries, value: None })
    }

    /// The value of a variable is an array, or texts that are separated by commas.
    fn list<'de, V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        if let Some(node) = self.inline()? {
            return Reader { node: &node, ..self }.list(visitor);
        }
        if let ConfigValue::Given(text) = &self.node.value {
            let entries = separated(text);
            return visitor.visit_seq(List { reader: self, entries: &entries, next: 0 });
        }
        let entries = match &self.node.value {
            ConfigValue::List(entries) => entries.as_slice(),
            ConfigValue::Null => &[],
            _ => return Err(de::Error::invalid_type(self.unexpected(), &visitor)),
        };
        visitor.visit_seq(List { reader: self, entries, next: 0 })
    }
}

/// The parts of a variable's value that are separated by commas; none if it is empty.
fn separated(text: &str) -> Vec<Node> {
    let entry =
        |part: &str| Node { position: None, value: ConfigValue::Given(part.trim().to_owned()) };
    match text.trim() {
        "" => Vec::new(),
        text => text.split(',').map(entry).collect(),
    }
}

fn visit_integer<'de, V: Visitor<'de>>(number: i128, visitor: V) -> Result<V::Value, Error> {
    if let Ok(number) = u64::try_from(number) {
        visitor.visit_u64(number)
    } else if let Ok(number) = i64::try_from(number) {
        visitor.visit_i64(number)
    } else {
        Err(de::Error::invalid_value(Unexpected::Other("an integer beyond 64 bits"), &visitor))
    }
}

/// Defines one `Deserializer` method for each way to read a value; each adds the position to
/// errors.
macro_rules! forward_methods {
    ($($method:ident => $reader:ident),* $(,)?) => {$(
        fn $method<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
            self.$reader(visitor).map_err(|error| error.or_at(self.node.position))
        }
    )*};
}

impl<'de> Deserializer<'de> for Reader<'_> {
    type Error = Error;

    forward_methods! {
        deserialize_any => any,
        deserialize_bool => bool,
        deserialize_i8 => integer,
        deserialize_i16 => integer,
        deserialize_i32 => integer,
        deserialize_i64 => integer,
        deserialize_u8 => integer,
        deserialize_u16 => integer,
        deserialize_u32 => integer,
        deserialize_u64 => integer,
        deserialize_f32 => float,
        deserialize_f64 => float,
        deserialize_str => plain,
        deserialize_string => plain,
        deserialize_seq => list,
        deserialize_map => table,
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        _fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Error> {
        self.deserialize_map(visitor)
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _name: &'static str,
        variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Error> {
        self.word(variants, visitor).map_err(|error| error.or_at(self.node.position))
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        visitor: V,
    ) -> Result<V::Value, Error> {
        visitor.visit_newtype_struct(self)
    }

    /// A key that exists always has a value.
    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        visitor.visit_some(self)
    }

    serde::forward_to_deserialize_any! {
        char bytes byte_buf unit unit_struct tuple tuple_struct
        identifier ignored_any
    }
}

struct List<'a> {
    reader: Reader<'a>,
    entries: &'a [Node],
    next: usize,
}

impl<'de> SeqAccess<'de> for List<'_> {
    type Error = Error;

    fn next_element_seed<T: DeserializeSeed<'de>>(
        &mut self,
        seed: T,
    ) -> Result<Option<T::Value>, Error> {
        let Some(node) = self.entries.get(self.next) else {
            return Ok(None);
        };
        let segment = format!("[{}]", self.next);
        self.next += 1;
        seed.deserialize(Reader { node, ..self.reader })
            .map(Some)
            .map_err(|error| error.or_at(node.position).under(&segment))
    }
}

struct Table<'a> {
    reader: Reader<'a>,
    entries: &'a [(ConfigKey, Node)],
    value: Option<(&'a ConfigKey, &'a Node)>,
}

impl<'de> MapAccess<'de> for Table<'_> {
    type Error = Error;

    fn next_key_seed<K: DeserializeSeed<'de>>(
        &mut self,
        seed: K,
    ) -> Result<Option<K::Value>, Error> {
        let Some(((key, node), rest)) = self.entries.split_first() else {
            return Ok(None);
        };
        self.entries = rest;
        self.value = Some((key, node));
        let name: StrDeserializer<'_, Error> = key.name.as_str().into_deserializer();
        seed.deserialize(name).map(Some).map_err(|error| error.or_at(key.position))
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value, Error> {
        let (key, node) = self.value.take().expect("serde asks for a key before its value");
        seed.deserialize(Reader { node, ..self.reader })
            .map_err(|error| error.or_at(node.position).under(&key.name))
    }
}
