//! Avro data in the binary encoding and the JSON encoding of the Avro specification.

use crate::model::{BadSchema, Invalid};
use apache_avro::reader::datum::GenericDatumReader;
use apache_avro::schema::UnionSchema;
use apache_avro::types::Value;
use apache_avro::writer::datum::GenericDatumWriter;
use apache_avro::{Schema, util};
use serde_json::{Map, Number, Value as Json};
use std::collections::HashMap;
use std::sync::Once;

/// The maximum allocation for one length in a datum, in bytes. The library's default is 512 MiB.
const CLAIM_BYTES: usize = 1024 * 1024;
/// The maximum number of types of a schema; each use of a named type counts.
const MAX_TYPES: usize = 10_000;
/// The maximum nesting depth of a schema.
const MAX_LEVELS: usize = 64;

/// Rules for an Avro datum.
#[derive(Debug)]
pub struct Avro {
    schema: Schema,
    /// The schemas that `schema` refers to; each comes after those that it refers to itself.
    others: Vec<Schema>,
    names: HashMap<String, Schema>,
}

impl Avro {
    /// Accepts data of a schema (Avro 1.12, in JSON). Logical types are checked as their underlying
    /// types.
    ///
    /// # Errors
    /// The text is not a valid schema, or a small message could expand without bound: a type
    /// contains itself, or the elements of an array take no bytes. Or the schema has too many types
    /// or levels.
    pub fn new(schema: &str) -> Result<Avro, BadSchema> {
        Avro::with(schema, &[])
    }

    /// As [`Avro::new`], with the texts of the schemas that `schema` refers to in `others`, each
    /// with a name that is not used. Each comes after those that it refers to itself.
    ///
    /// # Errors
    /// As for [`Avro::new`], for any of the texts.
    pub fn with(schema: &str, others: &[(String, String)]) -> Result<Avro, BadSchema> {
        static BOUND: Once = Once::new();
        BOUND.call_once(|| _ = util::max_allocation_bytes(CLAIM_BYTES));
        let plain = |text: &str| {
            let mut text: Json = serde_json::from_str(text).map_err(BadSchema::new)?;
            drop_logical_types(&mut text);
            Ok(text.to_string())
        };
        let schema = plain(schema)?;
        let others = others.iter().map(|(_, text)| plain(text)).collect::<Result<Vec<_>, _>>()?;
        let parsed = Schema::parse_str_with_list(&schema, &others);
        let (schema, others) = parsed.map_err(BadSchema::new)?;
        let mut schema_survey = SchemaSurvey::default();
        for schema in others.iter().chain([&schema]) {
            schema_survey.walk(schema, 0)?;
        }
        Ok(Avro { schema, others, names: schema_survey.names })
    }

    fn schemata(&self) -> Vec<&Schema> {
        self.others.iter().chain([&self.schema]).collect()
    }

    pub(in crate::model) fn check(&self, message: &[u8]) -> Result<(), Invalid> {
        self.decode(message).map(drop)
    }

    fn decode(&self, mut message: &[u8]) -> Result<Value, Invalid> {
        let malformed = |error: apache_avro::Error| {
            Invalid::malformed(format_args!("not Avro of this schema: {error}"))
        };
        let reader = GenericDatumReader::builder(&self.schema).writer_schemata(self.schemata());
        let reader = reader.and_then(|it| it.build()).map_err(malformed)?;
        let value = reader.read_value(&mut message).map_err(malformed)?;
        match message {
            // The library may return null where the message ends too early.
            [] if !self.fits(&value, &self.schema) => {
                Err(Invalid::malformed("the datum is cut off"))
            }
            [] => Ok(value),
            rest => {
                let more = rest.len();
                Err(Invalid::malformed(format_args!("{more} bytes more than the schema's datum")))
            }
        }
    }

    pub(in crate::model) fn to_json(&self, message: &[u8]) -> Result<Vec<u8>, Invalid> {
        let value = self.decode(message)?;
        let json = self.json_of(value, &self.schema)?;
        serde_json::to_vec(&json).map_err(|error| Invalid::broken(error.to_string()))
    }

    pub(in crate::model) fn encode_json(&self, json: &[u8]) -> Result<Vec<u8>, Invalid> {
        let json: Json = serde_json::from_slice(json)
            .map_err(|error| Invalid::malformed(format_args!("not JSON: {error}")))?;
        let value = self.value_of(json, &self.schema)?;
        let broken = |error: apache_avro::Error| Invalid::broken(error.to_string());
        let writer = GenericDatumWriter::builder(&self.schema).schemata(self.schemata());
        let writer = writer.and_then(|it| it.build()).map_err(broken)?;
        writer.write_value_to_vec(value).map_err(broken)
    }

    fn named<'s>(&'s self, schema: &'s Schema) -> &'s Schema {
        match schema {
            Schema::Ref { name } => self.names.get(&name.to_string()).unwrap_or(schema),
            _ => schema,
        }
    }

    /// Whether the value conforms to the schema.
    fn fits(&self, value: &Value, schema: &Schema) -> bool {
        match (value, self.named(schema)) {
            (Value::Null, Schema::Null)
            | (Value::Boolean(_), Schema::Boolean)
            | (Value::Int(_), Schema::Int)
            | (Value::Long(_), Schema::Long)
            | (Value::Float(_), Schema::Float)
            | (Value::Double(_), Schema::Double)
            | (Value::Bytes(_), Schema::Bytes)
            | (Value::String(_), Schema::String)
            | (Value::Enum(..), Schema::Enum(_)) => true,
            (Value::Fixed(size, _), Schema::Fixed(fixed)) => *size == fixed.size,
            (Value::Array(items), Schema::Array(array)) => {
                items.iter().all(|item| self.fits(item, &array.items))
            }
            (Value::Map(entries), Schema::Map(map)) => {
                entries.values().all(|value| self.fits(value, &map.types))
            }
            (Value::Record(values), Schema::Record(record)) => {
                let mut pairs = values.iter().zip(&record.fields);
                values.len() == record.fields.len()
                    && pairs.all(|((_, value), field)| self.fits(value, &field.schema))
            }
            (Value::Union(at, value), Schema::Union(union)) => {
                let branch = union.variants().get(*at as usize);
                branch.is_some_and(|branch| self.fits(value, branch))
            }
            _ => false,
        }
    }

    fn json_of(&self, value: Value, schema: &Schema) -> Result<Json, Invalid> {
        let schema = self.named(schema);
        Ok(match (value, schema) {
            (Value::Null, Schema::Null) => Json::Null,
            (Value::Boolean(it), _) => Json::Bool(it),
            (Value::Int(it), _) => it.into(),
            (Value::Long(it), _) => it.into(),
            (Value::Float(it), _) => number(it.into())?,
            (Value::Double(it), _) => number(it)?,
            (Value::String(it) | Value::Enum(_, it), _) => Json::String(it),
            (Value::Bytes(it) | Value::Fixed(_, it), _) => {
                Json::String(it.into_iter().map(char::from).collect())
            }
            (Value::Array(items), Schema::Array(array)) => {
                let items = items.into_iter().map(|item| self.json_of(item, &array.items));
                Json::Array(items.collect::<Result<_, _>>()?)
            }
            (Value::Map(entries), Schema::Map(map)) => {
                let entries = entries.into_iter();
                let entries = entries.map(|(key, it)| Ok((key, self.json_of(it, &map.types)?)));
                Json::Object(entries.collect::<Result<_, _>>()?)
            }
            (Value::Record(fields), Schema::Record(record)) => {
                let pairs = fields.into_iter().zip(&record.fields);
                let pairs =
                    pairs.map(|((name, it), field)| Ok((name, self.json_of(it, &field.schema)?)));
                Json::Object(pairs.collect::<Result<_, _>>()?)
            }
            (Value::Union(_, it), Schema::Union(_)) if *it == Value::Null => Json::Null,
            (Value::Union(at, it), Schema::Union(union)) => {
                let branch = union.variants().get(at as usize).ok_or_else(mismatch)?;
                let json = self.json_of(*it, branch)?;
                Json::Object(Map::from_iter([(branch_name(self.named(branch)), json)]))
            }
            _ => return Err(mismatch()),
        })
    }

    fn value_of(&self, json: Json, schema: &Schema) -> Result<Value, Invalid> {
        let schema = self.named(schema);
        let value = match (schema, json) {
            (Schema::Null, Json::Null) => Some(Value::Null),
            (Schema::Boolean, Json::Bool(it)) => Some(Value::Boolean(it)),
            (Schema::Int, Json::Number(it)) => {
                it.as_i64().and_then(|it| it.try_into().ok()).map(Value::Int)
            }
            (Schema::Long, Json::Number(it)) => it.as_i64().map(Value::Long),
            (Schema::Float, Json::Number(it)) => it.as_f64().map(|it| Value::Float(it as f32)),
            (Schema::Double, Json::Number(it)) => it.as_f64().map(Value::Double),
            (Schema::String, Json::String(it)) => Some(Value::String(it)),
            (Schema::Bytes, Json::String(it)) => latin(&it).map(Value::Bytes),
            (Schema::Fixed(fixed), Json::String(it)) => {
                let bytes = latin(&it).filter(|bytes| bytes.len() == fixed.size);
                bytes.map(|bytes| Value::Fixed(fixed.size, bytes))
            }
            (Schema::Enum(symbols), Json::String(it)) => {
                let at = symbols.symbols.iter().position(|symbol| *symbol == it);
                at.map(|at| Value::Enum(at as u32, it))
            }
            (Schema::Array(array), Json::Array(items)) => {
                let items = items.into_iter().map(|item| self.value_of(item, &array.items));
                Some(Value::Array(items.collect::<Result<_, _>>()?))
            }
            (Schema::Map(map), Json::Object(entries)) => {
                let entries = entries.into_iter();
                let entries = entries.map(|(key, it)| Ok((key, self.value_of(it, &map.types)?)));
                Some(Value::Map(entries.collect::<Result<_, _>>()?))
            }
            (Schema::Record(_), Json::Object(fields)) => Some(self.record_of(fields, schema)?),
            (Schema::Union(union), json) => Some(self.branch_of(json, union)?),
            _ => None,
        };
        value.ok_or_else(|| Invalid::broken(format_args!("this is no {}", branch_name(schema))))
    }

    fn record_of(&self, mut json: Map<String, Json>, schema: &Schema) -> Result<Value, Invalid> {
        let Schema::Record(record) = schema else { return Err(mismatch()) };
        let mut fields = Vec::with_capacity(record.fields.len());
        for field in &record.fields {
            let missing = || Invalid::broken(format_args!("the field `{}` is missing", field.name));
            let value = json.remove(&field.name).ok_or_else(missing)?;
            fields.push((field.name.clone(), self.value_of(value, &field.schema)?));
        }
        match json.keys().next() {
            Some(name) => Err(Invalid::broken(format_args!("no field is named `{name}`"))),
            None => Ok(Value::Record(fields)),
        }
    }

    /// The value of a union. The JSON encoding names the branch, as in `{"string": "x"}`; null is
    /// `null`.
    fn branch_of(&self, json: Json, union: &UnionSchema) -> Result<Value, Invalid> {
        let (wanted, json) = match json {
            Json::Null => ("null".to_owned(), Json::Null),
            Json::Object(entries) if entries.len() == 1 => {
                entries.into_iter().next().ok_or_else(mismatch)?
            }
            _ => return Err(Invalid::broken("of a union, the branch is named")),
        };
        let named = |branch: &Schema| branch_name(self.named(branch)) == wanted;
        let found = union.variants().iter().enumerate().find(|(_, branch)| named(branch));
        let unknown = || Invalid::broken(format_args!("the union has no `{wanted}`"));
        let (at, branch) = found.ok_or_else(unknown)?;
        Ok(Value::Union(at as u32, Box::new(self.value_of(json, branch)?)))
    }
}

fn mismatch() -> Invalid {
    Invalid::broken("the datum is not of its schema")
}

fn number(value: f64) -> Result<Json, Invalid> {
    let number = Number::from_f64(value).map(Json::Number);
    number.ok_or_else(|| Invalid::broken("JSON has no such number"))
}

/// The bytes of a text of the JSON encoding, in which each byte is the character with that code
/// point; `None` if a character is above U+00FF.
fn latin(text: &str) -> Option<Vec<u8>> {
    text.chars().map(|it| u8::try_from(it).ok()).collect()
}

fn branch_name(schema: &Schema) -> String {
    let plain = match schema {
        Schema::Null => "null",
        Schema::Boolean => "boolean",
        Schema::Int => "int",
        Schema::Long => "long",
        Schema::Float => "float",
        Schema::Double => "double",
        Schema::Bytes => "bytes",
        Schema::String => "string",
        Schema::Array(_) => "array",
        Schema::Map(_) => "map",
        Schema::Union(_) => "union",
        named => return named.name().map(ToString::to_string).unwrap_or_default(),
    };
    plain.to_owned()
}

/// Removes the logical types from a schema. Their binary encoding is that of the underlying types.
fn drop_logical_types(schema: &mut Json) {
    match schema {
        Json::Object(keys) => {
            keys.remove("logicalType");
            keys.iter_mut().filter(|(key, _)| *key != "default").for_each(|(_, value)| {
                drop_logical_types(value);
            });
        }
        Json::Array(items) => items.iter_mut().for_each(drop_logical_types),
        _ => {}
    }
}

/// The named types and the number of types of a schema, from the walk that checks its limits.
#[derive(Default)]
struct SchemaSurvey {
    names: HashMap<String, Schema>,
    /// The names of the named types that enclose the current one.
    within: Vec<String>,
    types: usize,
}

impl SchemaSurvey {
    /// Walks a schema and checks its limits. Returns whether a datum always takes at least one
    /// byte.
    fn walk(&mut self, schema: &Schema, level: usize) -> Result<bool, BadSchema> {
        self.types += 1;
        if self.types > MAX_TYPES || level > MAX_LEVELS {
            return Err(BadSchema::new("the schema has too many types"));
        }
        let name = schema.name().map(ToString::to_string);
        if let Schema::Ref { name } = schema {
            let name = name.to_string();
            if self.within.contains(&name) {
                return Err(BadSchema::new(format_args!("`{name}` contains itself")));
            }
            let unknown = || BadSchema::new(format_args!("the type `{name}` is not defined"));
            let schema = self.names.get(&name).cloned().ok_or_else(unknown)?;
            return self.walk(&schema, level + 1);
        }
        if let Some(name) = &name {
            self.names.entry(name.clone()).or_insert_with(|| schema.clone());
            self.within.push(name.clone());
        }
        let takes = match schema {
            Schema::Null => false,
            Schema::Fixed(fixed) => fixed.size > 0,
            Schema::Array(array) => self.elements(&array.items, level)?,
            Schema::Map(map) => self.walk(&map.types, level + 1).map(|_| true)?,
            Schema::Union(union) => {
                for branch in union.variants() {
                    self.walk(branch, level + 1)?;
                }
                true
            }
            Schema::Record(record) => {
                let mut takes = false;
                for field in &record.fields {
                    takes |= self.walk(&field.schema, level + 1)?;
                }
                takes
            }
            _ => true,
        };
        if name.is_some() {
            self.within.pop();
        }
        Ok(takes)
    }

    fn elements(&mut self, items: &Schema, level: usize) -> Result<bool, BadSchema> {
        match self.walk(items, level + 1)? {
            true => Ok(true),
            false => Err(BadSchema::new("an array whose items take no byte has no maximum length")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SCHEMA: &str = r#"{
        "type": "record", "name": "Tick", "namespace": "market", "fields": [
            {"name": "code", "type": "string"},
            {"name": "price", "type": ["null", "double"]},
            {"name": "side", "type": {"type": "enum", "name": "Side", "symbols": ["BUY", "SELL"]}},
            {"name": "other", "type": ["null", "Side"]},
            {"name": "raw", "type": "bytes"},
            {"name": "sizes", "type": {"type": "array", "items": "long"}},
            {"name": "notes", "type": {"type": "map", "values": "int"}},
            {"name": "id", "type": {"type": "fixed", "name": "Id", "size": 2}},
            {"name": "at", "type": {"type": "long", "logicalType": "timestamp-millis"}}
        ]}"#;
    const DATUM: &[u8] = b"\x06XYZ\x02\0\0\0\0\0\0\x25\x40\x02\x02\0\x04\xff\0\x04\x02\x04\0\
        \x02\x02a\x03\0\x01\x02\xd0\x0f";
    const JSON: &str = "{\"code\":\"XYZ\",\"price\":{\"double\":10.5},\"side\":\"SELL\",\
        \"other\":{\"market.Side\":\"BUY\"},\"raw\":\"\u{ff}\\u0000\",\"sizes\":[1,2],\
        \"notes\":{\"a\":-2},\"id\":\"\\u0001\\u0002\",\"at\":1000}";

    #[test]
    fn avro_datum_and_its_json_view() {
        let avro = Avro::new(SCHEMA).unwrap();
        assert_eq!(avro.check(DATUM), Ok(()));
        let json: Json = serde_json::from_slice(&avro.to_json(DATUM).unwrap()).unwrap();
        assert_eq!(json, serde_json::from_str::<Json>(JSON).unwrap());
        assert_eq!(avro.encode_json(JSON.as_bytes()).unwrap(), DATUM);
    }

    #[test]
    fn avro_refuses_malformed_data() {
        let avro = Avro::new(SCHEMA).unwrap();
        for end in 0..DATUM.len() {
            assert!(avro.check(&DATUM[..end]).is_err_and(|error| error.malformed), "{end}");
        }
        let mut more = DATUM.to_vec();
        more.push(0);
        assert_eq!(avro.check(&more).unwrap_err().reason, "1 bytes more than the schema's datum");
        let text = Avro::new("\"string\"").unwrap();
        for cut in [&b"\x06ab"[..], b"\x06", b""] {
            assert!(text.check(cut).is_err_and(|error| error.malformed), "{cut:x?}");
        }
        assert!(text.check(b"\x02\xff").is_err(), "not UTF-8");
        assert!(text.check(b"\xff\xff\xff\xff\xff\xff\xff\xff\x7f").is_err(), "too long a claim");
    }

    #[test]
    fn avro_refuses_json_that_does_not_match_the_schema() {
        let avro = Avro::new(SCHEMA).unwrap();
        assert!(avro.encode_json(b"{").is_err_and(|error| error.malformed));
        for (from, to, reason) in [
            ("\"at\":1000", "\"at\":1.5", "this is no long"),
            (",\"at\":1000", "", "the field `at` is missing"),
            ("\"at\"", "\"x\":1,\"at\"", "no field is named `x`"),
            ("\"SELL\"", "\"HOLD\"", "this is no market.Side"),
            ("{\"double\":10.5}", "10.5", "of a union, the branch is named"),
            ("{\"double\":10.5}", "{\"float\":10.5}", "the union has no `float`"),
            ("\\u0001\\u0002", "\\u0001", "this is no market.Id"),
            ("\u{ff}", "\u{100}", "this is no bytes"),
            ("-2", "2147483648", "this is no int"),
        ] {
            assert!(JSON.contains(from), "{from}");
            let error = avro.encode_json(JSON.replacen(from, to, 1).as_bytes()).unwrap_err();
            assert_eq!((error.malformed, error.reason.as_str()), (false, reason));
        }
        assert!(Avro::new("\"double\"").unwrap().to_json(&f64::NAN.to_le_bytes()).is_err());
    }

    #[test]
    fn avro_types_of_other_schemas() {
        let side = r#"{"type":"enum","name":"Side","namespace":"m","symbols":["BUY","SELL"]}"#;
        let part = r#"{"type":"record","name":"m.Part","fields":[{"name":"s","type":"m.Side"}]}"#;
        let root = r#"{"type":"record","name":"Order","fields":[
            {"name":"a","type":"m.Part"},{"name":"b","type":{"type":"array","items":"m.Part"}}]}"#;
        let given = |texts: &[&str]| {
            let named = texts.iter().map(|text| (String::new(), text.to_string()));
            Avro::with(root, &named.collect::<Vec<_>>())
        };
        let avro = given(&[side, part]).unwrap();
        let json = br#"{"a":{"s":"SELL"},"b":[{"s":"BUY"}]}"#;
        let datum = avro.encode_json(json).unwrap();
        assert_eq!(datum, b"\x02\x02\0\0");
        assert_eq!(avro.to_json(&datum).unwrap(), json);
        assert!(avro.check(b"\x04\x02\0\0").is_err());
        assert!(given(&[part]).is_err() && given(&[]).is_err());
        let circle = r#"{"type":"record","name":"m.Part","fields":[{"name":"s","type":"Order"}]}"#;
        assert!(given(&[circle]).is_err());
    }

    #[test]
    fn avro_refuses_schemas_that_could_grow_without_bound() {
        for (bad, why) in [
            (
                r#"{"type":"record","name":"L","fields":[{"name":"n","type":["null","L"]}]}"#,
                "itself",
            ),
            (r#"{"type":"array","items":"null"}"#, "no byte"),
            (r#"{"type":"array","items":{"type":"record","name":"E","fields":[]}}"#, "no byte"),
            (r#"{"type":"array","items":{"type":"fixed","name":"F","size":0}}"#, "no byte"),
        ] {
            let error = Avro::new(bad).unwrap_err().to_string();
            assert!(error.contains(why), "{bad}: {error}");
        }
        for bad in ["", "{", "1", "\"none\"", r#"{"type":"record"}"#] {
            assert!(Avro::new(bad).is_err(), "{bad}");
        }
        let nested = |levels: usize| {
            let open = r#"{"type":"array","items":"#.repeat(levels);
            format!("{open}\"int\"{}", "}".repeat(levels))
        };
        assert!(Avro::new(&nested(MAX_LEVELS)).is_ok());
        assert!(Avro::new(&nested(MAX_LEVELS + 1)).is_err());
    }
}
