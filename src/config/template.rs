//! Templates of channel names, such as `quotes-{symbol}`, by which the names of linked channels are
//! mapped to each other.

use crate::settings::pattern::Pattern;

/// The maximum number of placeholders of one template.
const MAX_PLACEHOLDERS: usize = 8;

/// A name with placeholders. A placeholder stands for at least one character; of several ways to
/// match a name, each placeholder from the left takes as few characters as possible.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct NameTemplate {
    /// Each placeholder with the literal before it.
    parts: Vec<(String, String)>,
    /// The literal after the last placeholder.
    tail: String,
}

/// The texts that stand in the place of a template's placeholders: name and text.
pub type Captures<'t> = Vec<(&'t str, &'t str)>;

impl NameTemplate {
    /// Parses a template.
    ///
    /// # Errors
    /// What is wrong with it, as one sentence for the operator.
    pub fn parse(text: &str) -> Result<NameTemplate, String> {
        if text.contains('*') {
            return Err("`*` has no meaning here; write a placeholder such as {name}".to_owned());
        }
        let mut parts: Vec<(String, String)> = Vec::new();
        let mut rest = text;
        while let Some((literal, after)) = rest.split_once('{') {
            let (name, after) = after.split_once('}').ok_or("a placeholder has no `}`")?;
            let is_name =
                |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_';
            if name.is_empty() || !name.bytes().all(is_name) {
                return Err("a placeholder's name consists of a-z, 0-9 and _".to_owned());
            }
            if parts.iter().any(|(_, other)| other == name) {
                return Err(format!("the placeholder {{{name}}} stands there twice"));
            }
            if literal.is_empty() && !parts.is_empty() {
                return Err("two placeholders need a text between them".to_owned());
            }
            parts.push((literal.to_owned(), name.to_owned()));
            rest = after;
        }
        if rest.contains('}') || parts.iter().any(|(literal, _)| literal.contains('}')) {
            return Err("a `}` has no `{`".to_owned());
        }
        if parts.len() > MAX_PLACEHOLDERS {
            return Err(format!("a template has at most {MAX_PLACEHOLDERS} placeholders"));
        }
        Ok(NameTemplate { parts, tail: rest.to_owned() })
    }

    /// The same template with a literal before it.
    #[must_use]
    pub fn under(mut self, prefix: &str) -> NameTemplate {
        match self.parts.first_mut() {
            Some((literal, _)) => literal.insert_str(0, prefix),
            None => self.tail.insert_str(0, prefix),
        }
        self
    }

    /// The names of the placeholders, sorted.
    pub fn placeholders(&self) -> Vec<&str> {
        let mut names: Vec<&str> = self.parts.iter().map(|(_, name)| name.as_str()).collect();
        names.sort_unstable();
        names
    }

    /// The literal with which every matching name begins.
    pub fn prefix(&self) -> &str {
        self.parts.first().map_or(&self.tail, |(literal, _)| literal)
    }

    /// The literal with which every matching name ends. `None` if the template has no placeholder:
    /// then it matches only the name [`NameTemplate::prefix`].
    pub fn tail(&self) -> Option<&str> {
        (!self.parts.is_empty()).then_some(&self.tail)
    }

    /// A pattern that matches every name that the template matches.
    pub fn pattern(&self) -> Pattern {
        let parts = self.parts.iter().map(|(literal, _)| format!("{literal}*"));
        Pattern::new(parts.chain([self.tail.clone()]).collect::<String>())
    }

    /// The texts in the place of the placeholders, if `name` matches.
    pub fn capture<'t>(&'t self, name: &'t str) -> Option<Captures<'t>> {
        let mut rest = name.strip_prefix(self.prefix())?;
        let mut captures = Captures::with_capacity(self.parts.len());
        if self.parts.is_empty() {
            return rest.is_empty().then_some(captures);
        }
        let literals = self.parts[1..].iter().map(|(literal, _)| literal.as_str());
        for ((_, placeholder), next) in self.parts.iter().zip(literals) {
            // At least one character stands before the next literal.
            let first = rest.chars().next()?.len_utf8();
            let at = first + rest[first..].find(next)?;
            captures.push((placeholder, &rest[..at]));
            rest = &rest[at + next.len()..];
        }
        let (_, placeholder) = self.parts.last()?;
        let last = rest.strip_suffix(self.tail.as_str()).filter(|last| !last.is_empty())?;
        captures.push((placeholder, last));
        Some(captures)
    }

    /// The name with these texts in the place of the placeholders. A placeholder without a text is
    /// left out, which the configuration excludes.
    pub fn fill(&self, captures: &[(&str, &str)]) -> String {
        let mut name = String::new();
        for (literal, placeholder) in &self.parts {
            name.push_str(literal);
            let text = captures.iter().find(|(other, _)| other == placeholder);
            name.push_str(text.map_or("", |(_, text)| text));
        }
        name.push_str(&self.tail);
        name
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn template(text: &str) -> NameTemplate {
        NameTemplate::parse(text).expect(text)
    }

    #[test]
    fn template_captures_and_fills_names() {
        let dash = template("q-{a}-{b}.x");
        assert_eq!(dash.capture("q-1-2-3.x"), Some(vec![("a", "1"), ("b", "2-3")]));
        for other in ["q-1.x", "q--2.x", "q-1-.x", "q-1-2", "r-1-2.x", "", "q-"] {
            assert_eq!(dash.capture(other), None, "{other}");
        }
        assert_eq!(dash.fill(&[("b", "two"), ("a", "one")]), "q-one-two.x");
        assert_eq!(template("news").capture("news"), Some(vec![]));
        assert_eq!(template("news").capture("newsy"), None);
        assert_eq!(template("{all}").capture("é"), Some(vec![("all", "é")]));
        assert_eq!(template("{all}").capture(""), None);
        assert_eq!(template("{a}é{b}").capture("ééé"), Some(vec![("a", "é"), ("b", "é")]));
        assert_eq!(template("a{b}").under("x ").capture("x ac"), Some(vec![("b", "c")]));
        assert_eq!(template("a").under("x ").fill(&[]), "x a");
        assert_eq!(dash.pattern().as_str(), "q-*-*.x");
        assert_eq!(template("{b}-{a}").placeholders(), ["a", "b"]);
        assert_eq!((dash.prefix(), dash.tail()), ("q-", Some(".x")));
        assert_eq!((template("news").prefix(), template("news").tail()), ("news", None));
    }

    #[test]
    fn template_reproduces_every_name_that_it_matches() {
        let templates = ["{a}", "x{a}", "{a}x", "x{a}x{b}", "{a}xx{b}x", "xy"].map(template);
        let mut names = vec![String::new()];
        for at in 0..40 {
            let longer = ["x", "y", "é"].map(|letter| format!("{}{letter}", names[at]));
            names.extend(longer);
        }
        for (template, name) in templates.iter().flat_map(|it| names.iter().map(move |n| (it, n))) {
            match template.capture(name) {
                Some(captures) => assert_eq!(template.fill(&captures), *name),
                None => assert!(!template.pattern().matches(name) || name.len() < 8, "{name}"),
            }
        }
    }

    #[test]
    fn template_refuses_what_has_no_meaning() {
        let placeholders: Vec<String> =
            (0..=MAX_PLACEHOLDERS).map(|n| format!("-{{p{n}}}")).collect();
        assert!(NameTemplate::parse(&placeholders[1..].concat()).is_ok());
        for (text, part) in [
            ("a*", "placeholder such as"),
            ("a{b", "no `}`"),
            ("a}b{c}", "no `{`"),
            ("a{b}c}", "no `{`"),
            ("a{}", "a-z"),
            ("a{B}", "a-z"),
            ("{a}{b}", "between"),
            ("{a}-{a}", "twice"),
            (&placeholders.concat(), "at most 8"),
        ] {
            let error = NameTemplate::parse(text).expect_err(text);
            assert!(error.contains(part), "{text}: {error}");
        }
    }
}
