//! JSON members as they were written, for values that are passed on without being interpreted.

use serde_json::value::RawValue;
use std::borrow::Cow;
use std::collections::HashMap;

/// The members of an object: unescaped names, and the text of each value. If a name is repeated,
/// the last value counts.
#[derive(Debug)]
pub struct RawMembers<'t>(HashMap<Cow<'t, str>, &'t RawValue>);

impl<'t> RawMembers<'t> {
    /// Reads one object; `None` if `text` is anything else.
    pub fn read(text: &'t str) -> Option<RawMembers<'t>> {
        serde_json::from_str(text).ok().map(RawMembers)
    }

    /// The text of a member's value.
    pub fn raw(&self, name: &str) -> Option<&'t str> {
        self.0.get(name).map(|value| value.get())
    }

    /// A member's value, if it is a string.
    pub fn text(&self, name: &str) -> Option<Cow<'t, str>> {
        #[derive(serde::Deserialize)]
        struct Text<'t>(#[serde(borrow)] Cow<'t, str>);
        serde_json::from_str(self.raw(name)?).ok().map(|Text(text)| text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn raw_members_keep_the_text_of_values() {
        let text =
            r#"{ "a" : {"z": 1.0e2, "b":[ ]}, "t":"x\n\u00e9", "n": 12345678901234567890123 }"#;
        let members = RawMembers::read(text).expect("an object");
        assert_eq!(members.raw("a"), Some(r#"{"z": 1.0e2, "b":[ ]}"#));
        assert_eq!(members.raw("n"), Some("12345678901234567890123"));
        assert_eq!(members.text("t").as_deref(), Some("x\né"));
        assert_eq!(members.text("a"), None);
        assert_eq!(members.raw("b"), None);
    }

    #[test]
    fn raw_members_need_an_object() {
        for bad in ["", "[]", "1", "{", "{} x", "\"a\"", "null"] {
            assert!(RawMembers::read(bad).is_none(), "{bad}");
        }
        let twice = RawMembers::read(r#"{"a":1,"a":2}"#).expect("an object");
        assert_eq!(twice.raw("a"), Some("2"));
    }
}
