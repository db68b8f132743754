//! A dialect is a folder and one entry in the table of dialects: the dialect `parrot`, which only
//! tests compile, is named nowhere else. Its `mod` line is what makes its file a part of the crate.

use super::{Source, sources};

/// The lines of other files that name the dialect `parrot`, as file and line.
fn lines_that_name(sources: &[Source], folder: &str) -> Vec<String> {
    let mut found = Vec::new();
    for source in sources {
        let own = source.path.trim_end_matches(".rs").trim_end_matches("/mod");
        if own.split('/').any(|part| part == folder) {
            continue;
        }
        for line in source.code.lines() {
            let words = line.split(|c: char| c != '_' && !c.is_alphanumeric());
            if words.into_iter().any(|word| word.eq_ignore_ascii_case(folder)) {
                found.push(format!("{}: {}", source.path, line.trim()));
            }
        }
    }
    found
}

#[test]
fn architecture_dialect_is_named_only_by_its_entry() {
    let sources = sources(&["src"]);
    let found = lines_that_name(&sources, "parrot");
    let expected = ["src/dialect/mod.rs: mod parrot;", "src/dialect/table.rs: Parrot in parrot {"];
    let (entry, others): (Vec<&String>, Vec<&String>) =
        found.iter().partition(|line| line.starts_with("src/dialect/table.rs"));
    assert_eq!(others, [expected[0]], "the `mod` line");
    assert_eq!(entry[0], expected[1], "the entry");
    let table = sources.iter().find(|source| source.path == "src/dialect/table.rs");
    let table = table.map_or("", |table| &*table.code);
    assert_eq!(table.matches("Parrot in parrot {").count(), 1);
    let lines = table[table.find("Parrot in parrot {").unwrap_or(0)..].lines();
    let length = lines.take_while(|line| line.trim() != "}").count();
    assert!(entry.len() <= length && length <= 7, "one entry of {length} lines");
}

/// What dialects use only through `runtime`: they need no guards, models and upstream servers, only
/// what these say of a client or a message.
const BEHIND_RUNTIME: [&str; 3] = ["jwt", "model", "upstream"];

fn uses_live_objects(source: &Source) -> Vec<String> {
    let used = source.root_paths().into_iter();
    let used = used.filter(|(_, used)| BEHIND_RUNTIME.contains(&used.as_str()));
    used.map(|(line, used)| source.at(line, &format!("dialects must not use {used}"))).collect()
}

#[test]
fn architecture_dialects_use_live_objects_only_through_runtime() {
    super::check_tree(&["src/dialect"], &uses_live_objects);
}

#[test]
fn rule_dialects_use_live_objects() {
    let complaints = |text: &str| uses_live_objects(&Source::new("src/dialect/a.rs", text)).len();
    assert_eq!(complaints("use crate::jwt::Guard;\nuse crate::{model, upstream::Pool};"), 3);
    assert_eq!(complaints("use crate::runtime::Runtime;\n// crate::jwt"), 0);
}

#[test]
fn rule_dialect_names() {
    let named =
        |path: &str, text: &str| lines_that_name(&[Source::new(path, text)], "parrot").len();
    assert_eq!(named("src/dialect/parrot.rs", "mod parrot;"), 0);
    assert_eq!(named("src/dialect/parrot/words.rs", "use super::parrot;"), 0);
    assert_eq!(named("src/config/app.rs", "enum A {\n    Parrot,\n}"), 1);
    assert_eq!(named("src/config/app.rs", "// parrot\nlet reparrot = 1;"), 0);
}
