//! A JSON Schema of the configuration, made from the declarations of the sections as the reference
//! is, so that editors complete and check a file while it is written.

use serde_json::{Map, Value, json};

use super::reference::{is_size, sample};
use crate::settings::range::KeyRange;
use crate::settings::section::{Key, Section};

/// The version of JSON Schema.
const DIALECT: &str = "https://json-schema.org/draft/2020-12/schema";

/// The JSON Schema of a configuration file, in draft 2020-12.
pub fn schema() -> String {
    let mut schema = table(&sample().keys());
    schema["$schema"] = json!(DIALECT);
    schema["title"] = json!("Configuration of polycast");
    schema["$defs"] = json!({
        "reference": {
            "description": "A text with ${NAME}, ${file:PATH} or ${credential:NAME}.",
            "type": "string",
            "pattern": r"\$\{",
        },
        "boolean_text": {
            "description": "true or false as a text, or a reference such as ${NAME}.",
            "type": "string",
            "pattern": r"^(true|false)$|\$\{",
        },
        "integer_text": {
            "description": "An integer as a text, or a reference such as ${NAME}.",
            "type": "string",
            "pattern": r"^[0-9]+$|\$\{",
        },
        "size_text": {
            "description": "A size with a unit such as 64KiB, or a reference such as ${NAME}.",
            "type": "string",
            "pattern": r"^[0-9]+ *(([KkMmGg][Ii]?)?[Bb])?$|\$\{",
        },
    });
    format!("{schema:#}\n")
}

/// The key at a path such as `["apps", "limits", "channels"]`, without the indices of lists.
pub(super) fn find_key<'p>(path: impl IntoIterator<Item = &'p str>) -> Option<Key> {
    let mut keys = sample().keys();
    let mut path = path.into_iter().peekable();
    while let Some(name) = path.next() {
        let at = keys.iter().position(|key| key.name == name)?;
        let key = keys.swap_remove(at);
        if path.peek().is_none() {
            return Some(key);
        }
        keys = key.table?;
    }
    None
}

/// The schema of a table. In YAML, a table without keys is null.
fn table(keys: &[Key]) -> Value {
    let properties: Map<String, Value> =
        keys.iter().map(|key| (key.name.to_owned(), property(key))).collect();
    let required: Vec<&str> =
        keys.iter().filter(|key| key.is_required).map(|key| key.name).collect();
    let mut table = json!({
        "type": if required.is_empty() { json!(["object", "null"]) } else { json!("object") },
        "properties": properties,
        "additionalProperties": false,
    });
    if !required.is_empty() {
        table["required"] = json!(required);
    }
    table
}

fn property(key: &Key) -> Value {
    let mut schema = of_kind(key, &key.kind);
    schema["description"] = json!(description(key));
    if let Some(default) = default(key) {
        schema["default"] = default;
    }
    schema
}

/// The schema of a value of `kind`, which is the kind of the key or of its entries.
fn of_kind(key: &Key, kind: &str) -> Value {
    if let Some(entries) = kind.strip_prefix("list of ") {
        let mut list = json!({ "type": ["array", "null"], "items": of_kind(key, entries) });
        if let (Some(range), true) = (key.range, kind == key.kind) {
            let (min, max) = range.bounds();
            (list["minItems"], list["maxItems"]) = (json!(min), json!(max));
        }
        // A single URL may be written without a list.
        return match key.name {
            "upstreams" => json!({ "anyOf": [list, { "type": "string" }] }),
            _ => list,
        };
    }
    if let Some(entries) = kind.strip_prefix("table of ") {
        let entries = of_kind(key, entries);
        return json!({ "type": ["object", "null"], "additionalProperties": entries });
    }
    if let Some((words, list)) = kind.split_once(", or ") {
        return json!({ "anyOf": [of_kind(key, words), of_kind(key, list)] });
    }
    // The range of a list is that of its length.
    let range = key.range.filter(|_| kind == key.kind);
    match kind {
        "table" => key.table.as_deref().map_or_else(|| json!({ "type": "object" }), table),
        "boolean" => either(json!({ "type": "boolean" }), "boolean_text"),
        "integer" if is_size(key) => either(integer(range), "size_text"),
        "integer" => either(integer(range), "integer_text"),
        "text" => match range {
            Some(range) => {
                let (min, max) = range.bounds();
                let text = json!({ "type": "string", "minLength": min, "maxLength": max });
                either(text, "reference")
            }
            None => json!({ "type": "string" }),
        },
        words => {
            let words: Vec<&str> = words.split(", ").collect();
            either(json!({ "enum": words }), "reference")
        }
    }
}

fn either(schema: Value, definition: &str) -> Value {
    json!({ "anyOf": [schema, { "$ref": format!("#/$defs/{definition}") }] })
}

fn integer(range: Option<KeyRange>) -> Value {
    let Some(range) = range else { return json!({ "type": "integer", "minimum": 0 }) };
    let (min, max) = range.bounds();
    if range.is_power_of_two() {
        let powers = (0..u64::BITS).map(|shift| 1_u64 << shift);
        return json!({ "enum": powers.filter(|it| (min..=max).contains(it)).collect::<Vec<_>>() });
    }
    let number = json!({ "type": "integer", "minimum": min, "maximum": max });
    match range.allows_zero() {
        true => json!({ "anyOf": [number, { "const": 0 }] }),
        false => number,
    }
}

/// The documentation of a key, with the unit and the range of its values.
fn description(key: &Key) -> String {
    let text = key.doc.iter().map(|line| line.trim()).collect::<Vec<_>>().join("\n");
    match key.range {
        Some(range) if range.unit().is_empty() => format!("{text}\n{range}."),
        Some(range) => format!("{text}\nIn {}: {range}.", range.unit()),
        None => text,
    }
}

/// The default of a key that may be left out, unless it is a table or a list of tables.
fn default(key: &Key) -> Option<Value> {
    if key.is_required || key.kind.ends_with("table") {
        return None;
    }
    let document = format!("value = {}", key.value.as_ref()?);
    let mut document: toml::Table = document.parse().ok()?;
    serde_json::to_value(document.remove("value")?).ok()
}
