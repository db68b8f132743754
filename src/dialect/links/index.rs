//! An index of the templates of channel names, so that a look-up does not compare the name with
//! every template.

use crate::config::NameTemplate;
use std::collections::HashMap;

/// The numbers of templates, by their literals.
///
/// A template without placeholders is found by its whole text. One with placeholders is found by
/// the literal at its beginning, and then by that at its end. No name begins and ends as two
/// templates of one configuration and one protocol do: the configuration refuses these, because
/// some name would match both. So a look-up leads to one template, or to few if links of earlier
/// configurations are included.
#[derive(Debug, Default)]
pub(super) struct TemplateIndex {
    exact: HashMap<Box<str>, Vec<u16>>,
    affixes: AffixTable<AffixTable<Vec<u16>>>,
}

impl TemplateIndex {
    /// An index of these templates.
    pub(super) fn new<'t>(
        templates: impl Iterator<Item = (u16, &'t NameTemplate)>,
    ) -> TemplateIndex {
        let mut index = TemplateIndex::default();
        let mut affixes: HashMap<&[u8], HashMap<Vec<u8>, Vec<u16>>> = HashMap::new();
        for (number, template) in templates {
            match template.tail() {
                None => index.exact.entry(template.prefix().into()).or_default().push(number),
                Some(tail) => {
                    let tails = affixes.entry(template.prefix().as_bytes()).or_default();
                    tails.entry(tail.bytes().rev().collect()).or_default().push(number);
                }
            }
        }
        let by_prefix = affixes.into_iter().map(|(prefix, tails)| {
            (prefix.into(), AffixTable::new(tails.into_iter().map(|(it, at)| (it.into(), at))))
        });
        index.affixes = AffixTable::new(by_prefix);
        index
    }

    /// The numbers of the templates whose literals at the beginning and at the end `name` has.
    /// Every template that matches `name` is among them.
    pub(super) fn candidates<'i>(&'i self, name: &'i str) -> impl Iterator<Item = u16> + use<'i> {
        let exact = self.exact.get(name).into_iter().flatten();
        let tails = self.affixes.heads_of(name.bytes());
        let affixes = tails.flat_map(|tails| tails.heads_of(name.bytes().rev())).flatten();
        exact.chain(affixes).copied()
    }
}

/// Values by a sequence of bytes, to find those whose sequence is the beginning of another.
#[derive(Debug)]
struct AffixTable<T> {
    /// Sorted by `bytes`.
    entries: Vec<AffixEntry<T>>,
}

#[derive(Debug)]
struct AffixEntry<T> {
    bytes: Box<[u8]>,
    /// The position of the longest other entry with which this one begins.
    shorter: Option<usize>,
    value: T,
}

impl<T> Default for AffixTable<T> {
    fn default() -> AffixTable<T> {
        AffixTable { entries: Vec::new() }
    }
}

impl<T> AffixTable<T> {
    /// A table of entries with different bytes.
    fn new(entries: impl Iterator<Item = (Box<[u8]>, T)>) -> AffixTable<T> {
        let mut entries: Vec<_> =
            entries.map(|(bytes, value)| AffixEntry { bytes, shorter: None, value }).collect();
        entries.sort_unstable_by(|one, other| one.bytes.cmp(&other.bytes));
        for at in 1..entries.len() {
            // In the order, everything between an entry and its own beginning has that beginning.
            let mut before = Some(at - 1);
            while let Some(earlier) = before
                && !entries[at].bytes.starts_with(&entries[earlier].bytes)
            {
                before = entries[earlier].shorter;
            }
            entries[at].shorter = before;
        }
        AffixTable { entries }
    }

    /// The values of all entries with which `text` begins, the longest first.
    fn heads_of(&self, text: impl Iterator<Item = u8> + Clone) -> impl Iterator<Item = &T> {
        let is_not_after = |entry: &AffixEntry<T>| {
            count_comparison();
            entry.bytes.iter().copied().le(text.clone())
        };
        let until = self.entries.partition_point(is_not_after);
        let mut at = until.checked_sub(1);
        // The last entry that is not after the text begins with all entries that we look for: those
        // that are not longer than what it has in common with the text.
        if let Some(last) = at.map(|at| &self.entries[at]) {
            count_comparison();
            let pairs = last.bytes.iter().zip(text.clone());
            let common = pairs.take_while(|(one, other)| **one == *other).count();
            while let Some(longer) = at.filter(|at| self.entries[*at].bytes.len() > common) {
                at = self.entries[longer].shorter;
            }
        }
        std::iter::successors(at, |at| self.entries[*at].shorter).map(|at| &self.entries[at].value)
    }
}

#[cfg(test)]
thread_local! {
    /// The number of comparisons of a name with an entry.
    pub(super) static COMPARISONS: std::cell::Cell<usize> = const { std::cell::Cell::new(0) };
}

#[cfg(test)]
fn count_comparison() {
    COMPARISONS.set(COMPARISONS.get() + 1);
}

#[cfg(not(test))]
fn count_comparison() {}

#[cfg(test)]
mod tests {
    use super::*;

    fn index(templates: &[NameTemplate]) -> TemplateIndex {
        TemplateIndex::new(templates.iter().enumerate().map(|(at, it)| (at as u16, it)))
    }

    fn template(text: &str) -> NameTemplate {
        NameTemplate::parse(text).expect(text)
    }

    #[test]
    fn links_index_finds_every_template_that_matches() {
        let mut names = vec![String::new()];
        for at in 0..120 {
            names.extend(["x", "y", "é"].map(|letter| format!("{}{letter}", names[at])));
        }
        let mut texts = vec!["{a}".to_owned(), "{a}y{b}".to_owned()];
        for affix in names.iter().take(40) {
            texts.push(affix.clone());
            for other in ["", "x", "yx", "éx"] {
                texts.push(format!("{affix}{{a}}{other}"));
                texts.push(format!("{other}{{a}}x{{b}}{affix}"));
            }
        }
        let templates: Vec<_> = texts.iter().map(|text| template(text)).collect();
        let index = index(&templates);
        for name in &names {
            let candidates: Vec<_> = index.candidates(name).collect();
            for (at, template) in templates.iter().enumerate() {
                let has_affixes = match template.tail() {
                    None => template.prefix() == name,
                    Some(tail) => name.starts_with(template.prefix()) && name.ends_with(tail),
                };
                let times = candidates.iter().filter(|it| **it == at as u16).count();
                assert_eq!(times, usize::from(has_affixes), "{name} {}", texts[at]);
                assert!(has_affixes || template.capture(name).is_none(), "{name} {}", texts[at]);
            }
        }
        assert_eq!(TemplateIndex::default().candidates("x").count(), 0);
    }
}
