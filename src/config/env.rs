//! Expansion of `${NAME}` in string values.

use crate::settings::error::Problem;

/// Looks up an environment variable. It is a parameter so that tests do not need the environment.
pub type Lookup<'a> = dyn Fn(&str) -> Option<String> + 'a;

/// Replaces `${NAME}` and `${NAME:-default}` by the value from `lookup`, and `$$` by `$`.
///
/// As in a shell, the default applies if the variable is not set or is empty. A variable's value is
/// inserted without further expansion.
pub(super) fn expand(text: &str, lookup: &Lookup<'_>) -> Result<String, Problem> {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find('$') {
        out.push_str(&rest[..at]);
        let after = &rest[at + 1..];
        if let Some(tail) = after.strip_prefix('$') {
            out.push('$');
            rest = tail;
            continue;
        }
        let inside = after.strip_prefix('{').and_then(|body| body.split_once('}'));
        let (body, tail) = inside.ok_or(Problem::Dollar)?;
        out.push_str(&variable(body, lookup)?);
        rest = tail;
    }
    out.push_str(rest);
    Ok(out)
}

fn variable(body: &str, lookup: &Lookup<'_>) -> Result<String, Problem> {
    let (name, default) = match body.split_once(":-") {
        Some((name, default)) => (name, Some(default)),
        None => (body, None),
    };
    let well_formed = !name.is_empty()
        && !name.starts_with(|c: char| c.is_ascii_digit())
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
    if !well_formed {
        return Err(Problem::Dollar);
    }
    match (lookup(name), default) {
        (Some(value), None) => Ok(value),
        (Some(value), Some(_)) if !value.is_empty() => Ok(value),
        (_, Some(default)) => Ok(default.to_owned()),
        (None, None) => Err(Problem::Environment(name.to_owned())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn expanded(text: &str) -> Result<String, String> {
        let lookup = |name: &str| match name {
            "HOST" => Some("10.0.0.1".to_owned()),
            "DOLLAR" => Some("${HOST}".to_owned()),
            "EMPTY" => Some(String::new()),
            _ => None,
        };
        expand(text, &lookup).map_err(|problem| problem.to_string())
    }

    #[test]
    fn env_variables_defaults_and_dollars() {
        for (text, value) in [
            ("", ""),
            ("plain", "plain"),
            ("${HOST}:6001", "10.0.0.1:6001"),
            ("${HOST}${HOST}", "10.0.0.110.0.0.1"),
            ("${NONE:-é}.", "é."),
            ("${NONE:-}", ""),
            ("${HOST:-x}", "10.0.0.1"),
            ("${EMPTY}", ""),
            ("${EMPTY:-x}", "x"),
            ("${NONE:-a:-b}", "a:-b"),
            ("$$", "$"),
            ("$${HOST}", "${HOST}"),
            ("$$$$", "$$"),
            ("$$${HOST}", "$10.0.0.1"),
            ("${DOLLAR}", "${HOST}"),
        ] {
            assert_eq!(expanded(text).as_deref(), Ok(value), "{text}");
        }
    }

    #[test]
    fn env_malformed_variables_are_refused() {
        for text in ["$", "$HOST", "${HOST", "${}", "${:-x}", "${A B}", "${1A}", "a$b", "$$$"] {
            assert!(expanded(text).unwrap_err().contains("`$$`"), "{text}");
        }
        assert!(expanded("${NONE}").unwrap_err().contains("`NONE` is not set"));
    }
}
