//! The file that is made of another server's options.

use toml::{Table, Value};

use super::{ForeignServer, Imported};
use crate::config::schema;
use crate::settings::error::{Error, Problem};

/// A document of this server, and the notes about options.
#[derive(Default)]
pub(super) struct Draft {
    document: Table,
    notes: Vec<String>,
}

impl Draft {
    /// Notes what becomes of the option `name`.
    pub(super) fn note(&mut self, name: &str, text: &str) {
        self.notes.push(format!("{name}: {text}"));
    }

    /// Sets the key at a path such as `apps.0.limits.channels`, in which numbers are the indices of
    /// lists. A `$` in a text stays one.
    pub(super) fn set(&mut self, path: &str, value: impl Into<Value>) {
        let value = literal(value.into());
        let mut parts = path.split('.').peekable();
        let mut at = &mut self.document;
        while let Some(name) = parts.next() {
            let Some(next) = parts.peek() else {
                at.insert(name.to_owned(), value);
                return;
            };
            let index: Option<usize> = next.parse().ok();
            let empty = || index.map_or(Value::Table(Table::new()), |_| Value::Array(Vec::new()));
            let table = match (index, at.entry(name).or_insert_with(empty)) {
                (Some(index), Value::Array(list)) => {
                    parts.next();
                    while list.len() <= index {
                        list.push(Value::Table(Table::new()));
                    }
                    if parts.peek().is_none() {
                        list[index] = value;
                        return;
                    }
                    list[index].as_table_mut()
                }
                (_, entry) => entry.as_table_mut(),
            };
            let Some(table) = table else { return };
            at = table;
        }
    }

    /// Sets a number from the option `name`, within the range of our key.
    pub(super) fn set_number(&mut self, path: &str, name: &str, number: u64) {
        let parts = path.split('.').filter(|part| part.parse::<usize>().is_err());
        let range = schema::find_key(parts).and_then(|key| key.range);
        let within = range.map_or(number, |range| match range.allows_zero() && number == 0 {
            true => 0,
            false => number.clamp(range.bounds().0, range.bounds().1),
        });
        if within != number {
            let text = format!("{number} is out of the range of `{path}`, so it becomes {within}");
            self.note(name, &text);
        }
        self.set(path, i64::try_from(within).unwrap_or(i64::MAX));
    }

    /// The number at `path`, if it is set.
    pub(super) fn number(&self, path: &str) -> Option<u64> {
        let mut parts = path.split('.');
        let mut at = self.document.get(parts.next()?)?;
        for part in parts {
            at = match part.parse::<usize>() {
                Ok(index) => at.get(index)?,
                Err(_) => at.get(part)?,
            };
        }
        u64::try_from(at.as_integer()?).ok()
    }

    /// Removes a section.
    pub(super) fn take_section(&mut self, name: &str) -> Option<Value> {
        self.document.remove(name)
    }

    /// The text of the document, and the notes.
    pub(super) fn finish(&self, server: ForeignServer) -> Result<Imported, Error> {
        let text = toml::to_string(&self.document)
            .map_err(|error| Error::new(Problem::Other(error.to_string())))?;
        let toml = format!("# Made by `polycast import {server}`. It contains secrets.\n\n{text}");
        Ok(Imported { toml, notes: self.notes.clone() })
    }
}

/// A value whose texts are not expanded when the file is read.
fn literal(value: Value) -> Value {
    match value {
        Value::String(text) => Value::String(text.replace('$', "$$")),
        Value::Array(list) => Value::Array(list.into_iter().map(literal).collect()),
        Value::Table(table) => {
            Value::Table(table.into_iter().map(|(name, it)| (name, literal(it))).collect())
        }
        other => other,
    }
}
