//! A parsed document, TOML or YAML, as one tree with the position of each key and value.
//!
//! Both formats are converted to this tree, so the later steps (variables, types, checks, errors)
//! exist only once.

use toml::de::{DeTable, DeValue};

use crate::settings::error::{Error, Position, Problem};

/// A value and the position where it begins.
#[derive(Debug)]
pub(super) struct Node {
    pub(super) position: Option<Position>,
    pub(super) value: ConfigValue,
}

/// The kinds of values in a configuration file.
#[derive(Debug)]
pub(super) enum ConfigValue {
    Null,
    Bool(bool),
    Int(i128),
    Float(f64),
    /// A text in which `${NAME}` is expanded.
    Text(String),
    /// A text that is used as it is.
    Literal(String),
    /// The value of an environment variable, whose type is that of its key.
    Given(String),
    List(Vec<Node>),
    Table(Vec<(ConfigKey, Node)>),
}

/// The key of a table entry and the position where it begins.
#[derive(Debug)]
pub(super) struct ConfigKey {
    pub(super) position: Option<Position>,
    pub(super) name: String,
}

impl Node {
    /// The position of `path` (such as `apps[1].key`): that of the key for a table entry, that of
    /// the value for a list entry. For a path that is not in the file, it is the position of the
    /// innermost part that is.
    pub(super) fn locate(&self, path: &str) -> Option<Position> {
        self.follow(path).0
    }

    /// The position of `path` if all of it is in the file.
    pub(super) fn locate_whole(&self, path: &str) -> Option<Position> {
        self.follow(path).1
    }

    /// The position of the innermost part of `path` that is in the file, and that of the whole
    /// path.
    fn follow(&self, path: &str) -> (Option<Position>, Option<Position>) {
        let mut node = self;
        let mut position = None;
        let mut own = None;
        for segment in path.split(['.', '[']).filter(|segment| !segment.is_empty()) {
            let entry = match &node.value {
                ConfigValue::List(entries) => segment
                    .strip_suffix(']')
                    .and_then(|index| entries.get(index.parse::<usize>().ok()?))
                    .map(|entry| (entry.position, entry)),
                ConfigValue::Table(entries) => entries
                    .iter()
                    .find(|(key, _)| key.name == segment)
                    .map(|(key, entry)| (key.position, entry)),
                _ => None,
            };
            let Some((place, entry)) = entry else { return (position, None) };
            position = place.or(position);
            own = place;
            node = entry;
        }
        (position, own)
    }
}

/// Reads a TOML array or inline table, whose texts are used as they are. The error is what the
/// parser reports.
pub(super) fn from_inline_toml(text: &str) -> Result<Node, String> {
    let parsed = DeValue::parse(text).map_err(|error| one_line(error.message()))?;
    Ok(literal(toml_value(&parsed, &Lines::new(text))))
}

/// The value without positions, and with texts that are used as they are.
fn literal(node: Node) -> Node {
    let entry =
        |(key, node): (ConfigKey, Node)| (ConfigKey { position: None, ..key }, literal(node));
    let value = match node.value {
        ConfigValue::Text(text) => ConfigValue::Literal(text),
        ConfigValue::List(list) => ConfigValue::List(list.into_iter().map(literal).collect()),
        ConfigValue::Table(table) => ConfigValue::Table(table.into_iter().map(entry).collect()),
        other => other,
    };
    Node { position: None, value }
}

/// Reads a TOML document.
pub(super) fn from_toml(text: &str) -> Result<Node, Error> {
    let lines = Lines::new(text);
    match DeTable::parse(text) {
        Ok(table) => Ok(toml_table(table.get_ref(), None, &lines)),
        Err(error) => Err(Error::at(
            Problem::Syntax(one_line(error.message())),
            error.span().map(|span| lines.position(span.start)),
        )),
    }
}

fn toml_table(table: &DeTable<'_>, position: Option<Position>, lines: &Lines<'_>) -> Node {
    let entry = |(key, value): (&toml::Spanned<_>, &toml::Spanned<_>)| {
        let name = AsRef::<str>::as_ref(key.get_ref()).to_owned();
        let position = Some(lines.position(key.span().start));
        (ConfigKey { position, name }, toml_value(value, lines))
    };
    Node { position, value: ConfigValue::Table(table.iter().map(entry).collect()) }
}

fn toml_value(value: &toml::Spanned<DeValue<'_>>, lines: &Lines<'_>) -> Node {
    let position = Some(lines.position(value.span().start));
    let value = match value.get_ref() {
        DeValue::String(text) => ConfigValue::Text(text.to_string()),
        DeValue::Integer(digits) => ConfigValue::Int(
            i128::from_str_radix(digits.as_str(), digits.radix()).unwrap_or(i128::MAX),
        ),
        DeValue::Float(digits) => ConfigValue::Float(digits.as_str().parse().unwrap_or(f64::NAN)),
        DeValue::Boolean(truth) => ConfigValue::Bool(*truth),
        DeValue::Datetime(moment) => ConfigValue::Text(moment.to_string()),
        DeValue::Array(entries) => {
            ConfigValue::List(entries.iter().map(|entry| toml_value(entry, lines)).collect())
        }
        DeValue::Table(table) => return toml_table(table, position, lines),
    };
    Node { position, value }
}

/// Converts byte offsets in a text to lines and columns.
struct Lines<'a> {
    text: &'a str,
    starts: Vec<usize>,
}

impl<'a> Lines<'a> {
    fn new(text: &'a str) -> Lines<'a> {
        let after_breaks = text.match_indices('\n').map(|(offset, _)| offset + 1);
        Lines { text, starts: std::iter::once(0).chain(after_breaks).collect() }
    }

    fn position(&self, offset: usize) -> Position {
        let line = self.starts.partition_point(|start| *start <= offset);
        let before = self.text.get(self.starts[line - 1]..offset).unwrap_or_default();
        Position { line, column: before.chars().count() + 1 }
    }
}

pub(super) fn one_line(message: &str) -> String {
    message.lines().map(str::trim).filter(|line| !line.is_empty()).collect::<Vec<_>>().join("; ")
}
