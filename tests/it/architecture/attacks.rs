//! The tables of attacks in `docs/security.md` are complete and name what exists.

use std::fs;
use std::path::Path;

/// The columns that every table of attacks has.
const COLUMNS: [&str; 5] = ["attack", "bound", "key", "counter", "test"];

fn read(path: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(path);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn cells(line: &str) -> Vec<&str> {
    line.trim_matches('|').split(" | ").map(str::trim).collect()
}

/// The names in backquotes.
fn quoted(cell: &str) -> impl Iterator<Item = &str> {
    cell.split('`').skip(1).step_by(2)
}

/// What is wrong in the tables of attacks of `page`, with the number of their rows.
fn complaints(page: &str, counters: &str, attacks: &str) -> (usize, Vec<String>) {
    let (mut columns, mut rows, mut wrong) = (Vec::new(), 0, Vec::new());
    for line in page.lines() {
        if !line.starts_with('|') {
            columns.clear();
        } else if columns.is_empty() {
            columns = cells(line);
        } else if columns.contains(&"attack") && !line.starts_with("| ---") {
            rows += 1;
            let cells = cells(line);
            let named = |name: &str| columns.iter().position(|column| *column == name);
            let cell = |name: &str| named(name).and_then(|at| cells.get(at)).copied().unwrap_or("");
            wrong.extend(
                COLUMNS
                    .iter()
                    .filter(|name| cell(name).is_empty())
                    .map(|name| format!("no {name} in {line}")),
            );
            wrong.extend(quoted(cell("counter")).filter_map(|name| {
                let exists = counters.lines().any(|line| line.trim() == format!("{name},"));
                (!exists).then(|| format!("no counter {name}"))
            }));
            wrong.extend(quoted(cell("test")).filter_map(|test| {
                let name = test.strip_prefix("attacks: ")?;
                (!attacks.contains(&format!("def {name}(run)")))
                    .then(|| format!("no attack {name}"))
            }));
        }
    }
    (rows, wrong)
}

#[test]
fn architecture_attacks_have_a_bound_a_key_a_counter_and_a_test() {
    let attacks: String = ["high", "medium", "rush"]
        .iter()
        .map(|name| read(&format!("tests/attacks/{name}.py")))
        .collect();
    let (rows, wrong) = complaints(&read("docs/security.md"), &read("src/stats.rs"), &attacks);
    assert!(rows >= 36, "{rows} rows");
    assert!(wrong.is_empty(), "{wrong:#?}");
    let page = "| attack | bound | key | counter | test |\n| --- |\n\
                | a | b | – | `c` | `attacks: h1` |\n| a | b | – | `d` |\n\
                | a | b | – | – | `attacks: h2` |\n";
    let (rows, wrong) = complaints(page, "    c,\n", "def h1(run):");
    assert_eq!((rows, wrong.len()), (3, 3), "{wrong:?}");
}

#[test]
fn architecture_optimised_build_checks_arithmetic() {
    let manifest: toml::Table = read("Cargo.toml").parse().expect("TOML");
    let profile = &manifest["profile"];
    assert_eq!(profile["release"]["overflow-checks"].as_bool(), Some(true));
    assert_eq!(profile["bench"]["inherits"].as_str(), Some("release"));
}
