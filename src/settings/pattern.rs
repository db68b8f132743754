//! Patterns in which `*` is a wildcard.

use serde::Deserialize;

/// A pattern in which each `*` matches any run of characters, including none and including `/`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
pub struct Pattern(String);

impl Pattern {
    /// Makes a pattern from its text.
    pub fn new(pattern: impl Into<String>) -> Pattern {
        Pattern(pattern.into())
    }

    /// The text of the pattern.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether the pattern is empty, which means no pattern where one is optional.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether any text matches both patterns.
    pub fn overlaps(&self, other: &Pattern) -> bool {
        match (self.affixes(), other.affixes()) {
            (None, _) => other.matches(&self.0),
            (_, None) => self.matches(&other.0),
            // What stands between the literals at both ends can contain whatever the other pattern
            // requires there.
            (Some((one_head, one_tail)), Some((head, tail))) => {
                (one_head.starts_with(head) || head.starts_with(one_head))
                    && (one_tail.ends_with(tail) || tail.ends_with(one_tail))
            }
        }
    }

    /// The literals before the first `*` and after the last one, if there is one.
    fn affixes(&self) -> Option<(&str, &str)> {
        let (head, rest) = self.0.split_once('*')?;
        Some((head, rest.rsplit_once('*').map_or(rest, |(_, tail)| tail)))
    }

    /// Whether the whole of `text` matches. Takes at most `pattern x text` steps.
    pub fn matches(&self, text: &str) -> bool {
        let Some(at) = memchr::memchr(b'*', self.0.as_bytes()) else {
            return self.0 == text;
        };
        let (head, rest) = (&self.0[..at], &self.0[at + 1..]);
        let Some(mut text) = text.strip_prefix(head) else {
            return false;
        };
        let (middle, tail) = rest.rsplit_once('*').unwrap_or(("", rest));
        for part in middle.split('*') {
            // The leftmost occurrence leaves the most text for the following parts.
            let Some(at) = text.find(part) else {
                return false;
            };
            text = &text[at + part.len()..];
        }
        text.ends_with(tail)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A reference implementation, character by character.
    fn naive(pattern: &str, text: &str) -> bool {
        let mut rest = text.chars();
        match pattern.chars().next() {
            None => text.is_empty(),
            Some('*') => {
                naive(&pattern[1..], text)
                    || rest.next().is_some_and(|_| naive(pattern, rest.as_str()))
            }
            Some(letter) => {
                rest.next() == Some(letter) && naive(&pattern[letter.len_utf8()..], rest.as_str())
            }
        }
    }

    #[test]
    fn patterns_overlap_if_a_text_matches_both() {
        let (patterns, texts) = (words(&['a', 'b', '*'], 3), words(&['a', 'b'], 6));
        for one in patterns.iter().map(Pattern::new) {
            for other in patterns.iter().map(Pattern::new) {
                let both = texts.iter().any(|text| one.matches(text) && other.matches(text));
                assert_eq!(one.overlaps(&other), both, "{one:?} {other:?}");
            }
        }
    }

    fn words(alphabet: &[char], longest: usize) -> Vec<String> {
        let mut all = vec![String::new()];
        let mut from = 0;
        for _ in 0..longest {
            let until = all.len();
            for index in from..until {
                for letter in alphabet {
                    let longer = format!("{}{letter}", all[index]);
                    all.push(longer);
                }
            }
            from = until;
        }
        all
    }

    #[test]
    fn pattern_equals_a_naive_model() {
        let texts = words(&['a', 'é'], 5);
        for pattern in words(&['a', 'é', '*'], 5) {
            for text in &texts {
                let matches = Pattern::new(&*pattern).matches(text);
                assert_eq!(matches, naive(&pattern, text), "{pattern} {text}");
            }
        }
    }

    #[test]
    fn pattern_of_paths_and_origins() {
        for (pattern, text, matches) in [
            ("/echo", "/echo", true),
            ("/echo", "/echo/", false),
            ("/echo*", "/echo/a/b", true),
            ("https://*.example.com", "https://a.b.example.com", true),
            ("https://*.example.com", "https://example.com", false),
            ("https://*.example.com", "https://a.example.com.evil", false),
            ("*", "", true),
        ] {
            assert_eq!(Pattern::new(pattern).matches(text), matches, "{pattern} {text}");
        }
    }
}
