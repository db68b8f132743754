//! Circles of files: files of one module that use each other in a loop, so that none of them can be
//! understood, moved or tested without the others.
//!
//! A file uses another if a path in it names something that the other defines. A name that a parent
//! re-exports belongs to the file that defines it, and the re-export itself is no use. Test modules
//! do not count.

use super::{Source, sources};
use std::collections::{BTreeMap, BTreeSet};

/// The circles that are accepted, which are none: the files of each, without `src/` and `.rs`.
const LEFT: &[&str] = &[];

/// A module by the names on its path from the crate root.
type Module = Vec<String>;

/// The files that each file uses, by their places in the list of sources.
type Uses = BTreeMap<usize, BTreeSet<usize>>;

/// A path of names in a source, with the offset of its first name.
struct NamePath {
    at: usize,
    names: Vec<String>,
    is_reexport: bool,
}

/// All paths that begin with `crate`, `self`, `super`, or a child module's name in a `use`, with
/// their groups expanded.
fn paths(source: &Source, children: &BTreeSet<String>) -> Vec<NamePath> {
    let code = source.without_tests();
    let mut found = Vec::new();
    let mut end = 0;
    for (at, word) in source.words().take_while(|(at, _)| *at < code.len()) {
        let gap = &code[end..at];
        let continues = gap.trim_end().ends_with("::");
        let begins = ["crate", "self", "super"].contains(&word) || children.contains(word);
        if begins && !continues && code[at + word.len()..].trim_start().starts_with("::") {
            let line = code[..at].rfind([';', '}', '{']).map_or(0, |start| start + 1);
            let statement = code[line..at].trim_start();
            let is_reexport = statement.starts_with("pub") && statement.contains("use ");
            let mut names = Vec::new();
            expand(&code[at..], &mut Vec::new(), &mut names);
            found.extend(names.into_iter().map(|names| NamePath { at, names, is_reexport }));
        }
        end = at + word.len();
    }
    found
}

/// Reads one path or group of paths from the start of `rest`, and returns its length.
fn expand(rest: &str, prefix: &mut Vec<String>, found: &mut Vec<Vec<String>>) -> usize {
    let depth = prefix.len();
    let mut at = rest.len() - rest.trim_start().len();
    loop {
        let is_part = |c: char| c == '_' || c.is_alphanumeric();
        let len = rest[at..].find(|c| !is_part(c)).unwrap_or(rest.len() - at);
        if len > 0 {
            prefix.push(rest[at..at + len].to_owned());
            at += len;
        }
        let tail = rest[at..].trim_start();
        let Some(next) = tail.strip_prefix("::") else { break };
        at = rest.len() - next.trim_start().len();
        if rest[at..].starts_with('{') {
            at += 1;
            loop {
                at += expand(&rest[at..], prefix, found);
                at += rest[at..].len() - rest[at..].trim_start().len();
                let stop = rest[at..].starts_with('}') || rest[at..].is_empty();
                at += usize::from(at < rest.len());
                if stop {
                    prefix.truncate(depth);
                    return at;
                }
            }
        }
        if !rest[at..].starts_with(is_part) {
            break;
        }
    }
    found.push(prefix.clone());
    prefix.truncate(depth);
    at
}

/// The module that a file defines.
fn module_of(path: &str) -> Module {
    let below = path.strip_prefix("src/").unwrap_or(path);
    let below = below.strip_suffix(".rs").unwrap_or(below);
    let below = below.strip_suffix("/mod").unwrap_or(below);
    below.split('/').filter(|name| *name != "lib").map(str::to_owned).collect()
}

/// All modules that are files, and the re-exports of each.
struct Tree<'s> {
    sources: &'s [Source],
    files: BTreeMap<Module, usize>,
    /// For each file the names that it re-exports, with the paths to them from the crate root.
    reexports: BTreeMap<usize, BTreeMap<String, Module>>,
}

impl<'s> Tree<'s> {
    fn new(sources: &'s [Source]) -> Tree<'s> {
        let files: BTreeMap<Module, usize> =
            sources.iter().enumerate().map(|(at, source)| (module_of(&source.path), at)).collect();
        let mut tree = Tree { sources, files, reexports: BTreeMap::new() };
        for at in 0..sources.len() {
            let mut names = BTreeMap::new();
            for path in tree.paths(at).into_iter().filter(|path| path.is_reexport) {
                if let (Some(full), Some(name)) = (tree.absolute(at, &path), path.names.last()) {
                    names.insert(name.clone(), full);
                }
            }
            tree.reexports.insert(at, names);
        }
        tree
    }

    fn paths(&self, at: usize) -> Vec<NamePath> {
        let own = module_of(&self.sources[at].path);
        let is_child = |module: &&Module| module.len() == own.len() + 1 && module.starts_with(&own);
        let children = self.files.keys().filter(is_child);
        let children = children.filter_map(|module| module.last().cloned()).collect();
        paths(&self.sources[at], &children)
    }

    /// A path in file `at`, from the crate root.
    fn absolute(&self, at: usize, path: &NamePath) -> Option<Module> {
        let mut full = module_of(&self.sources[at].path);
        let nested = self.sources[at].nesting(path.at);
        let mut up = 0;
        for (position, name) in path.names.iter().enumerate() {
            match name.as_str() {
                "crate" => full.clear(),
                "self" => {}
                "super" if up < nested => up += 1,
                "super" => _ = full.pop()?,
                // `super::super` inside an inline module may name the module itself.
                _ if position == 0 || up <= nested => full.push(name.clone()),
                _ => return None,
            }
        }
        Some(full)
    }

    /// The file that defines what a path from the crate root names.
    fn definer(&self, full: &[String]) -> Option<usize> {
        let mut full = full.to_vec();
        // Each round follows one re-export; a loop of them would not compile.
        for _ in 0..8 {
            let len = (1..=full.len()).rev().find(|len| self.files.contains_key(&full[..*len]))?;
            let file = self.files[&full[..len]];
            let reexport = full.get(len).and_then(|name| self.reexports.get(&file)?.get(name));
            match reexport {
                Some(target) => full = [target.as_slice(), &full[len + 1..]].concat(),
                None => return Some(file),
            }
        }
        None
    }

    /// Which files of its own top module each file uses.
    fn uses(&self) -> Uses {
        let mut uses = Uses::new();
        for at in 0..self.sources.len() {
            let used = uses.entry(at).or_default();
            for path in self.paths(at).iter().filter(|path| !path.is_reexport) {
                let other = self.absolute(at, path).and_then(|full| self.definer(&full));
                let Some(other) = other.filter(|other| *other != at) else { continue };
                if self.sources[at].module() == self.sources[other].module() {
                    used.insert(other);
                }
            }
        }
        uses
    }
}

/// Everything that can be reached from `from`.
fn reach(uses: &Uses, from: usize) -> BTreeSet<usize> {
    let mut seen = BTreeSet::new();
    let mut next = vec![from];
    while let Some(at) = next.pop() {
        next.extend(uses[&at].iter().filter(|other| seen.insert(**other)));
    }
    seen
}

/// The circles, each as the paths of its files in alphabetical order.
fn circles(sources: &[Source]) -> Vec<String> {
    let uses = Tree::new(sources).uses();
    let reached: Vec<BTreeSet<usize>> = (0..sources.len()).map(|at| reach(&uses, at)).collect();
    let mut found = BTreeSet::new();
    for at in 0..sources.len() {
        let both = |other: &&usize| reached[**other].contains(&at);
        let mut circle: Vec<&str> = reached[at]
            .iter()
            .filter(both)
            .map(|other| sources[*other].path.as_str())
            .map(|path| path.trim_start_matches("src/").trim_end_matches(".rs"))
            .collect();
        circle.sort_unstable();
        if circle.len() > 1 {
            found.insert(circle.join(" "));
        }
    }
    found.into_iter().collect()
}

#[test]
fn architecture_no_new_circles_of_files() {
    let sources: Vec<Source> = sources(&["src"]);
    let without_tests: Vec<Source> =
        sources.into_iter().filter(|source| !source.path.contains("/tests")).collect();
    let found = circles(&without_tests);
    assert_eq!(found, LEFT, "\n{}\n", found.join("\n"));
}

#[test]
fn rule_circles() {
    let tree = |files: &[(&str, &str)]| {
        let sources: Vec<Source> =
            files.iter().map(|(path, text)| Source::new(path, text)).collect();
        circles(&sources)
    };
    let none: [&str; 0] = [];
    let parent = ("src/a/mod.rs", "mod b;\nmod c;\npub use b::B;\npub struct A;");
    // A child uses what its parent defines, and a sibling's name through the parent.
    let children =
        [("src/a/b.rs", "use super::A;\npub struct B;"), ("src/a/c.rs", "use super::B;")];
    assert_eq!(tree(&[parent, children[0], children[1]]), none);
    // The parent uses its child, which uses the parent.
    let parent = ("src/a/mod.rs", "mod b;\nuse b::B;\npub struct A(B);");
    assert_eq!(tree(&[parent, children[0]]), ["a/b a/mod"]);
    // Two siblings, by a group, by a path in code, and through a re-export.
    let parent = ("src/a/mod.rs", "mod b;\nmod c;\npub use c::C;");
    let other = ("src/a/c.rs", "pub struct C;\nfn f() { super::b::f(); }");
    for text in ["use super::{x::Y, c::{self, C}};", "use crate::a::C;", "fn f(_: super::C) {}"] {
        assert_eq!(tree(&[parent, ("src/a/b.rs", text), other]), ["a/b a/c"], "{text}");
    }
    // Other modules, comments, and tests do not count.
    for text in
        ["use crate::d::C;", "// super::c::C", "\n#[cfg(test)]\nmod t { use super::super::c::C; }"]
    {
        assert_eq!(tree(&[parent, ("src/a/b.rs", text), other]), none, "{text}");
    }
}
