//! Invariants that are not only text: if the documentation of a module or a type states one, the
//! module or the type has a function `invariants`, which asserts it, and something calls that
//! function.

use super::{Source, sources};

#[test]
fn architecture_invariants_are_asserted() {
    let sources = sources(&["src"]);
    let complaints = unasserted(&sources);
    assert!(complaints.is_empty(), "\n{}\n", complaints.join("\n"));
    // The rule has found the well-known ones.
    let stated = sources.iter().map(|source| statements(source).len()).sum::<usize>();
    assert!(stated >= 5, "only {stated} stated invariants were found");
}

/// An invariant in a comment of documentation.
struct Statement {
    line: usize,
    /// The type that the documentation belongs to; `None` for the whole module.
    of: Option<String>,
}

fn statements(source: &Source) -> Vec<Statement> {
    let lines: Vec<&str> = source.text.lines().collect();
    let mut found = Vec::new();
    for (line, text) in lines.iter().enumerate() {
        let text = text.trim_start();
        let doc = text.strip_prefix("///").or_else(|| text.strip_prefix("//!"));
        if !doc.is_some_and(|doc| doc.trim_start().starts_with("Invariant")) {
            continue;
        }
        let is_type = |word: &&str| ["struct", "enum", "union", "trait"].contains(word);
        let of = match text.starts_with("//!") {
            true => None,
            false => {
                let rest = lines[line..].iter().map(|it| it.trim_start());
                let item =
                    rest.into_iter().find(|it| !it.starts_with("//") && !it.starts_with('#'));
                let words =
                    item.unwrap_or_default().split(|c: char| c != '_' && !c.is_alphanumeric());
                words.skip_while(|word| !is_type(word)).nth(1).map(str::to_owned)
            }
        };
        found.push(Statement { line, of });
    }
    found
}

/// Whether the source, or an `impl` of the type, has a function `invariants`.
fn asserts(source: &Source, of: Option<&str>) -> bool {
    let words: Vec<(usize, &str)> = source.words().collect();
    let has = |from: usize, to: usize| {
        let inside = words.iter().filter(|(at, _)| (from..to).contains(at)).map(|(_, word)| *word);
        let inside: Vec<&str> = inside.collect();
        inside.windows(2).any(|pair| pair == ["fn", "invariants"])
    };
    let Some(of) = of else { return has(0, source.code.len()) };
    words.iter().filter(|(_, word)| *word == "impl").any(|(at, _)| {
        let Some(end) = source.end_of_item(*at) else { return false };
        let header = source.code[*at..end].split('{').next().unwrap_or_default();
        let is_of_type =
            header.split(|c: char| c != '_' && !c.is_alphanumeric()).any(|word| word == of);
        is_of_type && has(*at, end)
    })
}

fn unasserted(sources: &[Source]) -> Vec<String> {
    let mut complaints = Vec::new();
    for source in sources {
        let module = source.module();
        let same = || sources.iter().filter(|other| other.module() == module);
        for statement in statements(source) {
            let of = statement.of.as_deref();
            // The function may stand in another file of the same module.
            if !(asserts(source, of) || of.is_some() && same().any(|it| asserts(it, of))) {
                let missing = "the invariant has no function `invariants`";
                complaints.push(source.at(statement.line, missing));
            } else if !same().any(|it| it.code.contains(".invariants(")) {
                complaints.push(source.at(statement.line, "nothing calls `invariants`"));
            }
        }
    }
    complaints
}

#[test]
fn rule_invariants() {
    let call = "fn f(it: &A) { it.invariants(); }";
    let own = "impl A { fn invariants(&self) {} }";
    for (files, expected) in [
        (&[("src/a.rs", "/// Does.\n///\n/// Invariant: one.\npub struct A;")][..], &["3"][..]),
        (&[("src/a.rs", &format!("/// Invariant: one.\nstruct A;\n{own}\n{call}"))], &[]),
        (
            &[("src/a.rs", &format!("/// Invariants: one.\n#[derive(B)]\nenum A {{}}\n{own}"))],
            &["1"],
        ),
        // The function of another type does not count; that of another file of the module does.
        (&[("src/a.rs", &format!("/// Invariant: one.\nstruct B;\n{own}\n{call}"))], &["1"]),
        (
            &[
                ("src/a/mod.rs", "/// Invariant: one.\nstruct A;"),
                ("src/a/b.rs", &format!("{own}\n{call}")),
            ],
            &[],
        ),
        (&[("src/a.rs", "/// Invariant: one.\nstruct A;"), ("src/b.rs", own)], &["1"]),
        (&[("src/a.rs", "//! Invariant: one.\nstruct A;\nfn g() {}")], &["1"]),
        (&[("src/a.rs", &format!("//! Invariant: one.\n{own}\n{call}"))], &[]),
        (&[("src/a.rs", "// Invariant: one.\n/// An Invariant.\nstruct A;")], &[]),
    ] {
        let sources: Vec<Source> =
            files.iter().map(|(path, text)| Source::new(path, text)).collect();
        let complaints = unasserted(&sources);
        let lines: Vec<&str> = complaints.iter().filter_map(|it| it.split(':').nth(1)).collect();
        assert_eq!(lines, expected, "{files:?}");
    }
}
