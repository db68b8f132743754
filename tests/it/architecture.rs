//! Checks of the sources against the architecture: layers, the modules that may be `unsafe`, names
//! and sizes.
//!
//! Every rule is a function from source text to complaints. The tests apply it to samples that
//! break it and to the source tree, so a rule that finds nothing by mistake also fails.

mod attacks;
mod circles;
mod dialects;
mod invariants;
mod sizes;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

const COLUMNS: usize = 100;
/// The maximum distance in lines from the beginning of a safety comment to its unsafe block.
const SAFETY_LINES: usize = 5;

/// The only modules that may contain unsafe code.
const UNSAFE_MODULES: [&str; 3] = ["mem", "simd", "uring"];
/// The files of the command and the crate root, which have no layer.
const WITHOUT_FLOOR: [&str; 4] = ["lib", "main", "log", "events"];
/// Public type names that several modules may define, each for its own protocol or format.
const SHARED_NAMES: [&str; 6] = ["Config", "Connection", "Error", "Reader", "State", "Target"];
/// Identifiers that the terms of `docs/GLOSSARY.md` have replaced, and that must not be used again.
const BANNED_WORDS: [&str; 134] = [
    "Action",
    "Beat",
    "Bell",
    "Came",
    "Choices",
    "Container",
    "Crowd",
    "Crowded",
    "Desk",
    "Door",
    "Doubt",
    "Ear",
    "Errand",
    "Facts",
    "Flood",
    "Forms",
    "Found",
    "Gone",
    "Half",
    "Heard",
    "Held",
    "Hidden",
    "Inlet",
    "Keep",
    "Keeper",
    "Kinds",
    "Lapse",
    "Lease",
    "Left",
    "Looked",
    "Missed",
    "Mistake",
    "Mood",
    "News",
    "NoEpoch",
    "Nonsense",
    "NotTaken",
    "Notice",
    "Odd",
    "Order",
    "Outlet",
    "Parked",
    "Passage",
    "Past",
    "Person",
    "Plus",
    "Post",
    "Realm",
    "Remember",
    "Said",
    "Saying",
    "Sayings",
    "Seat",
    "Seen",
    "Shown",
    "Spoken",
    "Squeeze",
    "Squeezed",
    "Standing",
    "Stretch",
    "Surroundings",
    "Survey",
    "Tenant",
    "Tended",
    "Terms",
    "Told",
    "Trouble",
    "UseId",
    "Verdict",
    "Waiting",
    "Wanted",
    "Ways",
    "Welcome",
    "What",
    "Whom",
    "Wish",
    "Word",
    "Words",
    "anew",
    "around",
    "asker",
    "beat",
    "believed",
    "bell",
    "came",
    "crowd",
    "crowded",
    "dear",
    "dearest",
    "desk",
    "door",
    "doubt",
    "doubted",
    "errand",
    "errands",
    "facts",
    "farewell",
    "farewells",
    "flood",
    "flooded",
    "gone",
    "hang",
    "hung",
    "lane",
    "lanes",
    "lapse",
    "least",
    "looked",
    "most",
    "notice",
    "notices",
    "nudge",
    "odd",
    "parting",
    "passage",
    "realm",
    "renewed",
    "rung",
    "said",
    "saying",
    "seat",
    "shown",
    "squeeze",
    "squeezed",
    "standing",
    "tell",
    "tells",
    "told",
    "vain",
    "verdict",
    "welcome",
    "welcomed",
    "whom",
    "wish",
];
/// Texts that must not be in the code.
const LEFTOVERS: [&str; 4] = ["todo!(", "unimplemented!(", "dbg!(", "#[ignore"];

/// The files that list parts, besides the modules that a stand-in replaces.
const FEATURE_FILES: [&str; 5] = [
    "src/parts.rs",
    "src/lib.rs",
    "src/dialect/table.rs",
    "src/control/mod.rs",
    "src/control/cluster/mod.rs",
];

type Floors = BTreeMap<String, u32>;
type Rule<'a> = &'a dyn Fn(&Source) -> Vec<String>;

// --- the tree ---

#[test]
fn architecture_modules_use_only_lower_layers() {
    let floors = floors(&read("src/lib.rs"));
    assert!(floors.len() > 10, "the table in src/lib.rs was not understood: {floors:?}");
    check_tree(&["src"], &|source| use_upwards(source, &floors));
}

#[test]
fn architecture_every_module_has_a_layer() {
    let floors = floors(&read("src/lib.rs"));
    let mut modules: Vec<String> = sources(&["src"]).iter().map(Source::module).collect();
    modules.sort();
    modules.dedup();
    modules.retain(|module| !WITHOUT_FLOOR.contains(&module.as_str()));
    assert_eq!(modules, floors.keys().cloned().collect::<Vec<_>>());
}

/// A file that no module declares is not compiled, and its tests do not run.
#[test]
fn architecture_every_file_is_compiled() {
    let sources = sources(&["src", "tests/it"]);
    let undeclared = undeclared(&sources);
    assert!(undeclared.is_empty(), "no `mod` names {undeclared:?}");
}

#[test]
fn architecture_unsafe_is_only_in_its_modules() {
    check_tree(&["src"], &unfenced);
}

#[test]
fn architecture_unsafe_has_a_safety_comment() {
    check_tree(&["src"], &unexplained);
}

#[test]
fn architecture_lines_are_narrow() {
    check_tree(&["src", "tests", "benches"], &wide_lines);
}

#[test]
fn architecture_no_leftovers() {
    check_tree(&["src", "tests", "benches"], &leftovers);
}

#[test]
fn architecture_public_type_names_are_unique() {
    let repeated = repeated_types(&sources(&["src"]));
    assert!(repeated.is_empty(), "\n{}\n", repeated.join("\n"));
}

#[test]
fn architecture_features_are_named_only_where_a_part_begins() {
    check_tree(&["src"], &scattered_features);
}

#[test]
fn architecture_private_words_do_not_come_back() {
    check_tree(&["src", "tests", "fuzz/bodies", "benches", "examples"], &banned_words);
}

// --- the rules ---

/// The layer of each module, from the table in the crate's documentation.
fn floors(lib: &str) -> Floors {
    let mut floors = Floors::new();
    for row in lib.lines().filter_map(|line| line.strip_prefix("//! | ")) {
        let mut cells = row.split('|').map(str::trim);
        let Some(Ok(floor)) = cells.next().map(str::parse::<u32>) else {
            continue;
        };
        for name in cells.next().unwrap_or_default().split(',') {
            floors.insert(name.trim().trim_matches(&['[', ']', '`'][..]).to_owned(), floor);
        }
    }
    floors
}

fn use_upwards(source: &Source, floors: &Floors) -> Vec<String> {
    let own = source.module();
    if WITHOUT_FLOOR.contains(&own.as_str()) {
        return Vec::new();
    }
    let Some(floor) = floors.get(&own) else {
        return vec![source.at(0, &format!("{own} is not in the table of floors"))];
    };
    let mut complaints = Vec::new();
    for (line, used) in source.root_paths() {
        let fits = match floors.get(&used) {
            Some(other) => used == own || other < floor,
            None => false,
        };
        if !fits {
            complaints.push(source.at(line, &format!("{own} must not use {used}")));
        }
    }
    complaints
}

/// The name of a file that stands in place of an optional part, in the folder of the part. It has
/// the names of the part, which are not compiled together with it.
const STAND_IN: &str = "/absent.rs";

/// The files that no parent module declares, by its name or by the attribute `path`.
fn undeclared(sources: &[Source]) -> Vec<&str> {
    let declares = |source: &Source, name: &str| {
        let words: Vec<&str> = source.words().map(|(_, word)| word).collect();
        words.windows(2).any(|pair| pair == ["mod", name])
    };
    let is_declared = |path: &str| {
        let path = path.strip_suffix(".rs").unwrap_or(path);
        let path = path.strip_suffix("/mod").unwrap_or(path);
        let (folder, name) = path.rsplit_once('/').unwrap_or(("", path));
        let parents = ["/mod.rs", "/main.rs", "/lib.rs", ".rs"].map(|end| format!("{folder}{end}"));
        let roots = ["main", "lib"].contains(&name);
        roots || sources.iter().any(|s| parents.contains(&s.path) && declares(s, name))
    };
    let is_stand_in = |path: &str| {
        path.ends_with(STAND_IN) && sources.iter().any(|source| source.replaces_by(path))
    };
    let is_declared = |path: &str| is_declared(path) || is_stand_in(path);
    sources.iter().map(|source| source.path.as_str()).filter(|path| !is_declared(path)).collect()
}

fn unfenced(source: &Source) -> Vec<String> {
    if UNSAFE_MODULES.contains(&source.module().as_str()) {
        return Vec::new();
    }
    let found = source.words().filter(|(_, word)| *word == "unsafe");
    found.map(|(at, _)| source.at(source.line(at), "unsafe outside of its fence")).collect()
}

/// Unsafe code without an explanation. A block or impl needs a `SAFETY:` comment. A function needs
/// a section `# Safety` in its documentation or in that of its trait.
fn unexplained(source: &Source) -> Vec<String> {
    let mut complaints = Vec::new();
    for (at, _) in source.words().filter(|(_, word)| *word == "unsafe") {
        let line = source.line(at);
        let explained = match source.code[at + "unsafe".len()..].split_whitespace().next() {
            // The type of a pointer to an unsafe function.
            Some(word) if word.starts_with("fn(") => true,
            Some("fn" | "extern" | "trait") => source.states_contract(line),
            _ => source.says_safety(line),
        };
        if !explained {
            complaints.push(source.at(line, "unsafe without a SAFETY comment"));
        }
    }
    complaints
}

/// Lines that are too wide. A line with an address or a raw string may be wide, because these
/// cannot be broken.
fn wide_lines(source: &Source) -> Vec<String> {
    let mut complaints = Vec::new();
    for (number, line) in source.text.lines().enumerate() {
        let whole = ["https://", "r#\""].iter().any(|part| line.contains(part));
        let columns = line.chars().count();
        if columns > COLUMNS && !whole {
            complaints.push(source.at(number, &format!("{columns} columns")));
        }
    }
    complaints
}

/// Names of two or more public types, for which a reader has to open every file. Types of tests and
/// stand-ins do not count.
fn repeated_types(sources: &[Source]) -> Vec<String> {
    let mut places: BTreeMap<&str, Vec<String>> = BTreeMap::new();
    let counts = |path: &str| !path.contains("/tests") && !path.ends_with(STAND_IN);
    for source in sources.iter().filter(|source| counts(&source.path)) {
        for (at, name) in source.public_types() {
            let line = source.line(at) + 1;
            places.entry(name).or_default().push(format!("{}:{line}", source.path));
        }
    }
    places.retain(|name, places| places.len() > 1 && !SHARED_NAMES.contains(name));
    places.iter().map(|(name, places)| format!("{name}: {}", places.join(", "))).collect()
}

/// Lines that depend on a feature elsewhere than at the boundary of a part: in the files of
/// [`FEATURE_FILES`], in the attribute that replaces a module, and in tests.
fn scattered_features(source: &Source) -> Vec<String> {
    if FEATURE_FILES.contains(&source.path.as_str()) || source.path.contains("/tests") {
        return Vec::new();
    }
    let lines: Vec<&str> = source.text[..source.without_tests().len()].lines().collect();
    let is_allowed = |number: usize, line: &str| {
        let replaces = line.starts_with("#[cfg_attr(not(feature = \"") && line.contains(STAND_IN);
        let next = source.text.lines().nth(number + 1);
        replaces || line.trim().starts_with("//") || next == Some("#[cfg(test)]")
    };
    let named = lines.iter().enumerate().filter(|(_, line)| line.contains("feature = \""));
    let scattered = named.filter(|(number, line)| !is_allowed(*number, line));
    scattered.map(|(number, _)| source.at(number, "a feature inside a part")).collect()
}

fn banned_words(source: &Source) -> Vec<String> {
    let found = source.words().filter(|(_, word)| BANNED_WORDS.contains(word));
    let complaint = |word| format!("`{word}` is not the field's word: see docs/GLOSSARY.md");
    found.map(|(at, word)| source.at(source.line(at), &complaint(word))).collect()
}

fn leftovers(source: &Source) -> Vec<String> {
    let mut complaints = Vec::new();
    for leftover in LEFTOVERS {
        for (at, _) in source.code.match_indices(leftover) {
            complaints.push(source.at(source.line(at), leftover));
        }
    }
    complaints
}

// --- sources ---

/// One file: its text, and its code with blanks in place of comments, strings and characters.
struct Source {
    path: String,
    text: String,
    code: String,
    /// The offset of each line in `code`, which has the same offsets as `text`.
    starts: Vec<usize>,
}

impl Source {
    fn new(path: &str, text: &str) -> Source {
        let code = blank(text);
        let ends = code.match_indices('\n').map(|(at, _)| at + 1);
        let starts = std::iter::once(0).chain(ends).collect();
        Source { path: path.to_owned(), text: text.to_owned(), code, starts }
    }

    /// The module below the crate root that the file belongs to.
    fn module(&self) -> String {
        let below = self.path.strip_prefix("src/").unwrap_or(&self.path);
        let name = below.split('/').next().unwrap_or(below);
        name.strip_suffix(".rs").unwrap_or(name).to_owned()
    }

    /// The number of modules between the crate root and the top of this file: 1 for
    /// `src/hub/mod.rs`.
    fn depth(&self) -> usize {
        let below = self.path.strip_prefix("src/").unwrap_or(&self.path);
        let parts = below.split('/').count();
        if below.ends_with("/mod.rs") { parts - 1 } else { parts }
    }

    /// Whether an attribute of a module in this file names the file `path` instead of the module's
    /// own, in builds without a feature or for a target.
    fn replaces_by(&self, path: &str) -> bool {
        let folder = self.path.rsplit_once('/').map_or("", |(folder, _)| folder);
        let below = path.strip_prefix(folder).and_then(|below| below.strip_prefix('/'));
        below.is_some_and(|below| {
            let named = format!("path = \"{below}\")]");
            let mut lines = self.text.lines();
            lines.any(|line| line.starts_with("#[cfg_attr(") && line.ends_with(&named))
        })
    }

    fn line(&self, at: usize) -> usize {
        self.starts.partition_point(|start| *start <= at) - 1
    }

    /// A complaint about a line, counted from 0.
    fn at(&self, line: usize, complaint: &str) -> String {
        format!("{}:{}: {complaint}", self.path, line + 1)
    }

    /// All identifiers and keywords of the code, with their offsets.
    fn words(&self) -> impl Iterator<Item = (usize, &str)> {
        let is_part = |c: char| c == '_' || c.is_alphanumeric();
        let mut at = 0;
        std::iter::from_fn(move || {
            let start = at + self.code[at..].find(is_part)?;
            let rest = &self.code[start..];
            let len = rest.find(|c| !is_part(c)).unwrap_or(rest.len());
            at = start + len;
            Some((start, &rest[..len]))
        })
    }

    /// The text above the file's test module.
    fn without_tests(&self) -> &str {
        let tests = self.code.find("\n#[cfg(test)]\nmod ");
        &self.code[..tests.unwrap_or(self.code.len())]
    }

    /// The types that the file makes public, to the crate or to a part of it, with their offsets.
    fn public_types(&self) -> Vec<(usize, &str)> {
        let end = self.without_tests().len();
        let words: Vec<(usize, &str)> = self.words().take_while(|(at, _)| *at < end).collect();
        let mut found = Vec::new();
        for (at, pair) in words.windows(2).enumerate() {
            let is_type = ["struct", "enum", "trait", "type", "union"].contains(&pair[0].1);
            // `pub`, or `pub` with up to three words in parentheses, as in `pub(in crate::hub)`.
            let before = &self.code[..pair[0].0];
            let visible = words[at.saturating_sub(4)..at].iter().rev().find(|it| it.1 == "pub");
            let is_public = visible.is_some_and(|(start, word)| {
                let between = before[start + word.len()..].trim();
                between.is_empty() || between.starts_with('(') && between.ends_with(')')
            });
            // An alias that binds the parameters of a generic type of the same name is that type.
            let (name_at, name) = pair[1];
            let item = self.code[name_at..].split(';').next().unwrap_or_default();
            let binds = pair[0].1 == "type" && item.contains(&format!("::{name}<"));
            if is_type && is_public && !binds {
                found.push(pair[1]);
            }
        }
        found
    }

    /// The modules of the crate root that the file uses, by `crate::` or by enough `super::`, with
    /// their lines.
    fn root_paths(&self) -> Vec<(usize, String)> {
        let mut found = Vec::new();
        let mut up = 0;
        for (at, word) in self.words() {
            let rest = &self.code[at + word.len()..];
            let Some(tail) = rest.trim_start().strip_prefix("::") else {
                up = 0;
                continue;
            };
            up = if word == "super" { up + 1 } else { 0 };
            let to_root = word == "crate" || (up > 0 && up == self.depth() + self.nesting(at));
            if to_root {
                let line = self.line(at);
                found.extend(heads(tail).into_iter().map(|head| (line, head)));
            }
        }
        found
    }

    /// The number of inline modules that enclose an offset.
    fn nesting(&self, place: usize) -> usize {
        let modules = self.words().filter(|(at, word)| *word == "mod" && *at < place);
        let holds = |at: &usize| self.end_of_item(*at).is_some_and(|end| end > place);
        modules.filter(|(at, _)| holds(at)).count()
    }

    /// The offset of the brace that closes the item whose keyword is at `at`; `None` without a
    /// body.
    fn end_of_item(&self, at: usize) -> Option<usize> {
        let mut brackets = 0;
        let mut braces = 0;
        for (offset, c) in self.code[at..].char_indices() {
            match c {
                '(' | '[' => brackets += 1,
                ')' | ']' if brackets == 0 => return None,
                ')' | ']' => brackets -= 1,
                ';' | '}' if brackets == 0 && braces == 0 => return None,
                '{' => braces += 1,
                '}' => {
                    braces -= 1;
                    if braces == 0 {
                        return Some(at + offset);
                    }
                }
                _ => {}
            }
        }
        None
    }

    fn says_safety(&self, line: usize) -> bool {
        let above = self.text.lines().take(line + 1).skip(line.saturating_sub(SAFETY_LINES));
        above.into_iter().any(|line| line.contains("// SAFETY:"))
    }

    /// Whether the documentation directly above a function, or that of its trait, has the section
    /// `# Safety`. An implementation of a trait has the contract of the trait.
    fn states_contract(&self, line: usize) -> bool {
        let lines: Vec<&str> = self.text.lines().collect();
        let indent = |line: &str| line.len() - line.trim_start().len();
        let documented = |line: usize| {
            let above = lines[..line].iter().rev().map(|line| line.trim_start());
            let mut about =
                above.take_while(|line| line.starts_with("//") || line.starts_with('#'));
            about.any(|line| line.contains("# Safety") || line.contains("SAFETY:"))
        };
        if documented(line) {
            return true;
        }
        let outer =
            |at: &usize| !lines[*at].trim().is_empty() && indent(lines[*at]) < indent(lines[line]);
        let Some(outer) = (0..line).rev().find(outer) else {
            return false;
        };
        let header = lines[outer].trim_start();
        let is_trait = ["trait ", "pub trait ", "pub(super) trait ", "pub(crate) trait "];
        match is_trait.iter().any(|start| header.starts_with(start)) {
            true => documented(outer),
            false => header.starts_with("impl") && header.contains(" for "),
        }
    }
}

/// The first names of the rest of a path: `a` of `a::b`, and `a`, `c` of `{a::b, c}`.
fn heads(tail: &str) -> Vec<String> {
    let tail = tail.trim_start();
    let name = |text: &str| {
        let text = text.trim_start();
        let end = text.find(|c: char| c != '_' && !c.is_alphanumeric()).unwrap_or(text.len());
        text[..end].to_owned()
    };
    let Some(group) = tail.strip_prefix('{') else {
        return vec![name(tail)];
    };
    let mut heads = Vec::new();
    let mut depth = 0;
    let mut start = 0;
    for (at, c) in group.char_indices() {
        match c {
            '{' => depth += 1,
            ',' | '}' if depth == 0 => {
                heads.push(name(&group[start..at]));
                start = at + 1;
                if c == '}' {
                    break;
                }
            }
            '}' => depth -= 1,
            _ => {}
        }
    }
    heads.retain(|head| !head.is_empty());
    heads
}

/// Replaces every octet of a comment, string or character by a blank; the lines stay the same.
fn blank(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        let inside = inert(rest, out.chars().next_back());
        let len = if inside > 0 { inside } else { first.len_utf8() };
        match inside {
            0 => out.push(first),
            _ => out.extend(rest[..len].bytes().map(|b| if b == b'\n' { '\n' } else { ' ' })),
        }
        rest = &rest[len..];
    }
    out
}

/// The length of the comment or literal that `rest` begins with; 0 if it begins with code.
fn inert(rest: &str, before: Option<char>) -> usize {
    let to = |end: Option<usize>| end.unwrap_or(rest.len());
    if rest.starts_with("//") {
        return to(rest.find('\n'));
    }
    if rest.starts_with("/*") {
        return block_comment(rest);
    }
    let in_word = before.is_some_and(|c| c == '_' || c.is_alphanumeric());
    if !in_word {
        let raw = ["r", "br", "cr"].iter().find_map(|prefix| rest.strip_prefix(prefix));
        let hashes = raw.map_or(0, |raw| raw.len() - raw.trim_start_matches('#').len());
        if let Some(body) = raw.and_then(|raw| raw[hashes..].strip_prefix('"')) {
            let end = format!("\"{}", "#".repeat(hashes));
            let start = rest.len() - body.len();
            return to(body.find(&end).map(|at| start + at + end.len()));
        }
    }
    match rest.as_bytes()[0] {
        b'"' => quoted(rest, '"'),
        b'\'' => {
            let mut chars = rest[1..].chars();
            // A lifetime has no quote after its first character.
            match (chars.next(), chars.next()) {
                (Some('\\'), _) | (Some(_), Some('\'')) => quoted(rest, '\''),
                _ => 0,
            }
        }
        _ => 0,
    }
}

fn quoted(rest: &str, quote: char) -> usize {
    let mut escaped = false;
    for (at, c) in rest.char_indices().skip(1) {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            _ if c == quote => return at + 1,
            _ => {}
        }
    }
    rest.len()
}

fn block_comment(rest: &str) -> usize {
    let mut depth = 0;
    let mut at = 0;
    while at < rest.len() {
        let tail = &rest.as_bytes()[at..];
        at += match tail {
            [b'/', b'*', ..] => {
                depth += 1;
                2
            }
            [b'*', b'/', ..] => {
                depth -= 1;
                2
            }
            _ => 1,
        };
        if depth == 0 {
            return at;
        }
    }
    rest.len()
}

// --- reading ---

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

fn read(path: &str) -> String {
    fs::read_to_string(root().join(path)).unwrap()
}

/// Reads all Rust files below `folders`.
fn sources(folders: &[&str]) -> Vec<Source> {
    let mut sources = Vec::new();
    for folder in folders {
        collect(&root().join(folder), &mut sources);
    }
    sources
}

fn collect(folder: &Path, sources: &mut Vec<Source>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() && !path.ends_with("node_modules") {
            collect(&path, sources);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let name = path.strip_prefix(root()).unwrap().to_str().unwrap();
            sources.push(Source::new(name, &fs::read_to_string(&path).unwrap()));
        }
    }
}

fn check_tree(folders: &[&str], rule: Rule<'_>) {
    let sources = sources(folders);
    assert!(sources.len() > 30, "only {} files were found", sources.len());
    let complaints: Vec<String> = sources.iter().flat_map(rule).collect();
    assert!(complaints.is_empty(), "\n{}\n", complaints.join("\n"));
}

// --- the rules on samples ---

/// An empty list of lines.
const NONE: [usize; 0] = [];

/// The lines about which `rule` complains in a file `path` with this text.
fn lines_of(rule: Rule<'_>, path: &str, text: &str) -> Vec<usize> {
    let complaints = rule(&Source::new(path, text));
    complaints.iter().map(|it| it.split(':').nth(1).unwrap().parse().unwrap()).collect()
}

#[test]
fn rule_floors() {
    let table = "//! | floor | module | what |\n//! | --- | --- | --- |\n//! | 2 | [`top`] | a |\n\
                 //! | 1 | [`left`], [`right`] | b |\n//! | 0 | [`low`] | c |\n";
    let floors = floors(table);
    let names: Vec<_> = floors.iter().map(|(name, floor)| (name.as_str(), *floor)).collect();
    assert_eq!(names, [("left", 1), ("low", 0), ("right", 1), ("top", 2)]);
    let rule = |source: &Source| use_upwards(source, &floors);
    for (path, text, expected) in [
        ("src/left.rs", "use crate::low;\nuse crate::left::x;", &[][..]),
        ("src/left.rs", "\nuse crate::right::x;", &[2]),
        ("src/left/mod.rs", "use crate::{low::{self, top}, top, left::right};", &[1]),
        ("src/left/deep.rs", "use crate::{\n    low,\n    right::{a, b},\n};", &[1]),
        ("src/left.rs", "fn f() -> crate::top::T {\n    crate::low::f();\n}", &[1]),
        ("src/left.rs", "pub(in crate::right) fn f() {}", &[1]),
        ("src/left.rs", "macro_rules! m { () => { $crate::top::f() } }", &[1]),
        ("src/left.rs", "use super::top;", &[1]),
        ("src/left/mod.rs", "use super::top;", &[1]),
        ("src/left/deep.rs", "use super::top;\nuse super::super::low;", &[]),
        ("src/left/deep.rs", "use super::super::top;", &[1]),
        ("src/left.rs", "mod tests {\n    use super::top;\n    use super::super::top;\n}", &[3]),
        ("src/left.rs", "mod tests {\n    use crate::top;\n}", &[2]),
        ("src/left.rs", "// crate::top\n/// [`crate::top`]\nfn f() { \"crate::top\"; }", &[]),
        ("src/left.rs", "use crate::unknown;", &[1]),
        ("src/unknown.rs", "", &[1]),
        ("src/main.rs", "use crate::top;", &[]),
    ] {
        assert_eq!(lines_of(&rule, path, text), expected, "{path}: {text}");
    }
}

#[test]
fn rule_declared() {
    let files = [
        ("src/lib.rs", "pub mod a;\nmod b;\n// mod d;"),
        ("src/main.rs", "mod c;"),
        ("src/a/mod.rs", "mod x;"),
        ("src/a/x.rs", ""),
        ("src/a/y.rs", ""),
        ("src/b.rs", "mod z;"),
        ("src/b/z.rs", ""),
        ("src/c.rs", ""),
        ("src/d.rs", ""),
    ];
    let sources = files.map(|(path, text)| Source::new(path, text));
    assert_eq!(undeclared(&sources), ["src/a/y.rs", "src/d.rs"]);
    let replaced = "#[cfg_attr(not(feature = \"x\"), path = \"x/absent.rs\")]\nmod x;";
    let files = [
        ("src/main.rs", ""),
        ("src/a/mod.rs", replaced),
        ("src/a/x/mod.rs", ""),
        ("src/a/x/absent.rs", ""),
        ("src/x/absent.rs", ""),
    ];
    let sources = files.map(|(path, text)| Source::new(path, text));
    assert_eq!(undeclared(&sources), ["src/a/mod.rs", "src/x/absent.rs"]);
}

#[test]
fn rule_features() {
    let at = |path: &str, text: &str| lines_of(&scattered_features, path, text);
    let seam = "#[cfg_attr(not(feature = \"x\"), path = \"x/absent.rs\")]\nmod x;";
    assert_eq!(at("src/hub/mod.rs", seam), NONE);
    assert_eq!(at("src/hub/mod.rs", "#[cfg(feature = \"x\")]\n#[cfg(test)]\nmod tests;"), NONE);
    assert_eq!(at("src/hub/mod.rs", "\n#[cfg(feature = \"x\")]\nfn f() {}"), [2]);
    assert_eq!(at("src/hub/mod.rs", "fn f() {\n    if cfg!(feature = \"x\") {}\n}"), [2]);
    assert_eq!(at("src/dialect/table.rs", "#[cfg(feature = \"x\")]"), NONE);
    assert_eq!(at("src/hub/tests.rs", "#[cfg(feature = \"x\")]"), NONE);
    let module = "\n#[cfg(test)]\nmod tests {\n    #[cfg(feature = \"x\")]\n}";
    assert_eq!(at("src/hub/mod.rs", module), NONE);
}

#[test]
fn rule_fence() {
    let text = "// unsafe\nfn f() { \"unsafe\"; }\nfn g() { unsafe { h() } }\nfn unsafe_not() {}";
    assert_eq!(lines_of(&unfenced, "src/hub/mod.rs", text), [3]);
    assert_eq!(lines_of(&unfenced, "src/stats.rs", "unsafe impl Send for T {}"), [1]);
    for path in ["src/mem/frame.rs", "src/simd.rs", "src/uring/mod.rs"] {
        assert_eq!(lines_of(&unfenced, path, text), NONE);
    }
}

#[test]
fn rule_safety() {
    for (text, expected) in [
        ("fn f() {\n    unsafe { g() }\n}", &[2][..]),
        ("fn f() {\n    // SAFETY: g is fine.\n    unsafe { g() }\n}", &[]),
        ("// SAFETY: far.\n\n\n\n\n\nfn f() { unsafe { g() } }", &[7]),
        ("// SAFETY: near.\n\n\n\n\nfn f() { unsafe { g() } }", &[]),
        ("unsafe impl Send for T {}", &[1]),
        ("// SAFETY: it owns all.\nunsafe impl Send for T {}", &[]),
        ("/// Does.\nunsafe fn f() {}", &[2]),
        ("/// # Safety\n/// None.\n#[inline]\npub unsafe fn f() {}", &[]),
        ("/// # Safety\n/// None.\ntrait T {\n    unsafe fn f();\n}", &[]),
        ("/// Does.\ntrait T {\n    unsafe fn f();\n}", &[3]),
        ("impl T for U {\n    unsafe fn f() {}\n}", &[]),
        ("impl U {\n    unsafe fn f() {}\n}", &[2]),
        ("fn f(run: unsafe fn(u8)) {}", &[]),
    ] {
        assert_eq!(lines_of(&unexplained, "src/mem/x.rs", text), expected, "{text}");
    }
}

#[test]
fn rule_columns() {
    let line = |columns: usize| format!("\n//{}", "\u{e9}".repeat(columns - 2));
    assert_eq!(lines_of(&wide_lines, "src/x.rs", &line(COLUMNS)), NONE);
    assert_eq!(lines_of(&wide_lines, "src/x.rs", &line(COLUMNS + 1)), [2]);
    assert_eq!(lines_of(&wide_lines, "src/x.rs", &format!("{} https://x", line(COLUMNS))), NONE);
}

#[test]
fn rule_unique_types() {
    let files = [
        ("src/a.rs", "pub struct One;\npub(super) enum Two {}\nstruct Three;\npub struct Error;"),
        ("src/b.rs", "pub(in crate::b) type One = u8;\npub trait Two {}\npub struct Three;"),
        (
            "src/c.rs",
            "pub struct Error;\nfn f() { struct One; }\npub fn g() -> Three { type X = u8; }",
        ),
        ("src/d.rs", "fn f() {}\n#[cfg(test)]\nmod tests {\n    pub struct Three;\n}"),
        ("src/d/tests.rs", "pub struct Three;"),
        ("src/e.rs", "pub struct Four<M>(M);"),
        ("src/f.rs", "pub type Four = e::Four<u8>;"),
    ];
    let sources = files.map(|(path, text)| Source::new(path, text));
    assert_eq!(
        repeated_types(&sources),
        ["One: src/a.rs:1, src/b.rs:1", "Two: src/a.rs:2, src/b.rs:2"]
    );
}

#[test]
fn rule_banned_words() {
    let text =
        "// told\nfn told() {}\nfn is_told() { \"told\"; }\nstruct Wish;\nlet most = x.told;";
    assert_eq!(lines_of(&banned_words, "src/x.rs", text), [2, 4, 5, 5]);
}

#[test]
fn rule_leftovers() {
    let text = "// todo!()\nfn f() {\n    todo!();\n    unimplemented!(\"x\");\n    dbg!(1);\n}\n\
                #[ignore = \"slow\"]\nfn g() { \"dbg!(\"; }";
    assert_eq!(lines_of(&leftovers, "src/x.rs", text), [3, 4, 5, 7]);
}

#[test]
fn architecture_blanking_keeps_code_and_places() {
    for (text, expected) in [
        ("a // b\nc", "a     \nc"),
        ("a /* b /* c */\nd */ e", "a             \n     e"),
        (r#"a("b\"c", 'd')"#, "a(      ,    )"),
        ("a(r#\"b\"c\"#) br\"d\"", "a(        )      "),
        ("&'a str, 'b', '\\'', b'{'", "&'a str,    ,     , b   "),
        ("\"\u{e9}\" x", "     x"),
    ] {
        assert_eq!(blank(text), expected, "{text}");
    }
}
