//! A value in a Zilla file, with its path and position for errors.

use crate::config::env::Lookup;
use crate::config::tree::{ConfigKey, ConfigValue, Node};
use crate::settings::error::{Error, Position, Problem};

/// The lookup of environment variables.
#[derive(Clone, Copy)]
pub(super) struct VariableLookup<'a> {
    lookup: &'a Lookup<'a>,
}

/// A value, with the path of its key and its position.
#[derive(Clone)]
pub(super) struct YamlPlace<'a> {
    pub(super) path: String,
    /// The last part of the path.
    pub(super) name: &'a str,
    position: Option<Position>,
    node: &'a Node,
    context: VariableLookup<'a>,
}

fn entries(node: &Node) -> &[(ConfigKey, Node)] {
    match &node.value {
        ConfigValue::Table(entries) => entries,
        _ => &[],
    }
}

impl<'a> YamlPlace<'a> {
    pub(super) fn top(node: &'a Node, lookup: &'a Lookup<'a>) -> YamlPlace<'a> {
        let context = VariableLookup { lookup };
        YamlPlace { path: String::new(), name: "", position: node.position, node, context }
    }

    pub(super) fn wrong(&self, problem: impl Into<String>) -> Error {
        self.refuse(Problem::Other(problem.into()))
    }

    fn refuse(&self, problem: Problem) -> Error {
        Error::keyed(self.path.clone(), problem).or_at(self.position)
    }

    fn at(&self, key: &'a ConfigKey, node: &'a Node) -> YamlPlace<'a> {
        let path = match self.path.as_str() {
            "" => key.name.clone(),
            path => format!("{path}.{}", key.name),
        };
        let position = key.position.or(node.position);
        YamlPlace { path, name: &key.name, position, node, context: self.context }
    }

    /// Refuses a value that is not a table, and a table with keys that are not in `known`.
    pub(super) fn only(&self, known: &'static [&'static str]) -> Result<(), Error> {
        for place in self.table()? {
            if !known.contains(&place.name) {
                return Err(place.refuse(Problem::UnknownKey { known }));
            }
        }
        Ok(())
    }

    /// The entries of this table.
    pub(super) fn table(&self) -> Result<Vec<YamlPlace<'a>>, Error> {
        match &self.node.value {
            ConfigValue::Null => Ok(Vec::new()),
            ConfigValue::Table(entries) => {
                Ok(entries.iter().map(|(key, node)| self.at(key, node)).collect())
            }
            _ => Err(self.wrong("expected a table")),
        }
    }

    /// The entry `name` of this table, if it exists.
    pub(super) fn get(&self, name: &str) -> Option<YamlPlace<'a>> {
        let found = entries(self.node).iter().find(|(key, _)| key.name == name);
        found.map(|(key, node)| self.at(key, node))
    }

    /// The entry `name` of this table, or an error if it does not exist.
    pub(super) fn need(&self, name: &str) -> Result<YamlPlace<'a>, Error> {
        self.get(name).ok_or_else(|| self.wrong(format!("the key `{name}` is missing")))
    }

    /// The entries of the table `name`; none if it does not exist.
    pub(super) fn below(&self, name: &str) -> Result<Vec<YamlPlace<'a>>, Error> {
        self.get(name).map_or_else(|| Ok(Vec::new()), |place| place.table())
    }

    /// The entries of the list `name`; none if it does not exist. A value that is not a list counts
    /// as one entry.
    pub(super) fn list(&self, name: &str) -> Vec<YamlPlace<'a>> {
        let Some(place) = self.get(name) else { return Vec::new() };
        let ConfigValue::List(entries) = &place.node.value else { return vec![place] };
        let entry = |(index, node): (usize, &'a Node)| YamlPlace {
            path: format!("{}[{index}]", place.path),
            name: place.name,
            position: node.position,
            node,
            context: self.context,
        };
        entries.iter().enumerate().map(entry).collect()
    }

    /// A text or a number as text; `${{env.NAME}}` is replaced by the environment variable.
    pub(super) fn text(&self) -> Result<String, Error> {
        let mut rest = match &self.node.value {
            ConfigValue::Text(text) => text.as_str(),
            ConfigValue::Int(number) => return Ok(number.to_string()),
            _ => return Err(self.wrong("expected a text")),
        };
        let mut out = String::new();
        while let Some((before, inside)) = rest.split_once("${{") {
            let (expression, after) = inside.split_once("}}").unwrap_or((inside, ""));
            let Some(name) = expression.trim().strip_prefix("env.") else {
                return Err(self.wrong("an expression must have the form `${{env.NAME}}`"));
            };
            let value = (self.context.lookup)(name);
            let value = value.ok_or_else(|| self.refuse(Problem::Environment(name.to_owned())))?;
            out.push_str(before);
            out.push_str(&value);
            rest = after;
        }
        Ok(out + rest)
    }

    /// The texts of the list `name`, or its single text.
    pub(super) fn texts(&self, name: &str) -> Result<Vec<String>, Error> {
        self.list(name).iter().map(YamlPlace::text).collect()
    }

    /// The text of the entry `name`, if it exists.
    pub(super) fn word(&self, name: &str) -> Result<Option<String>, Error> {
        self.get(name).map(|place| place.text()).transpose()
    }

    /// The number of the entry `name`, if it exists.
    pub(super) fn number(&self, name: &str) -> Result<Option<u64>, Error> {
        let Some(place) = self.get(name) else { return Ok(None) };
        let number = place.text()?.parse();
        number.map(Some).map_err(|_| place.wrong("expected an integer, 0 or more"))
    }

    /// The boolean of the entry `name`, if it exists.
    pub(super) fn flag(&self, name: &str) -> Result<Option<bool>, Error> {
        let Some(place) = self.get(name) else { return Ok(None) };
        match (&place.node.value, place.text().as_deref()) {
            (ConfigValue::Bool(truth), _) => Ok(Some(*truth)),
            (_, Ok("true")) => Ok(Some(true)),
            (_, Ok("false")) => Ok(Some(false)),
            _ => Err(place.wrong("expected true or false")),
        }
    }
}
