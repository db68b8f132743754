//! The length of files and functions, in lines of code.
//!
//! Blank lines, comments, `use` and a file's test module do not count. What is longer has to say
//! why, in a line that begins with [`REASON`]: for a file in its documentation, for a function in
//! the comment above it. A reason that is not needed any more is a complaint, too, so that each one
//! is a true exception.

use super::{NONE, Source, check_tree, lines_of};

/// The maximum lines of a file, and of one that says why it is long or that has tests.
const FILE_LINES: usize = 400;
const LONG_FILE_LINES: usize = 800;
/// The maximum lines of a function, and of one that says why it is long.
const FUNCTION_LINES: usize = 60;
const LONG_FUNCTION_LINES: usize = 100;
/// The beginning of a reason, after the marks of the comment.
const REASON: &str = "Long because ";

#[test]
fn architecture_functions_are_short() {
    check_tree(&["src"], &long_functions);
}

#[test]
fn architecture_files_are_short() {
    check_tree(&["src"], &long_file);
}

// --- the rules ---

fn long_functions(source: &Source) -> Vec<String> {
    let lines: Vec<&str> = source.text.lines().collect();
    let is_code = source.code_lines();
    let mut complaints = Vec::new();
    let mut used = Vec::new();
    for (at, _) in source.words().filter(|(_, word)| *word == "fn") {
        let is_type = source.code[at + "fn".len()..].trim_start().starts_with('(');
        let Some(end) = source.end_of_item(at).filter(|_| !is_type) else {
            continue;
        };
        let first = source.line(at);
        let count = is_code[first..=source.line(end)].iter().filter(|is_code| **is_code).count();
        let reason = reason_above(&lines, first);
        used.extend(reason);
        let max = if reason.is_some() { LONG_FUNCTION_LINES } else { FUNCTION_LINES };
        if count > max {
            complaints.push(source.at(first, &format!("a function of {count} lines of code")));
        } else if count <= FUNCTION_LINES
            && let Some(reason) = reason
        {
            complaints.push(source.at(reason, "the function is not long any more"));
        }
    }
    let of_function = |line: &str| {
        let text = line.trim_start();
        text.starts_with("//") && !text.starts_with("//!") && is_reason(text)
    };
    let stray = (0..lines.len()).filter(|at| of_function(lines[*at]) && !used.contains(at));
    complaints.extend(stray.map(|at| source.at(at, "a reason that is not above a function")));
    complaints
}

/// The line of the reason in the comments and attributes directly above an item.
fn reason_above(lines: &[&str], item: usize) -> Option<usize> {
    let above = (0..item).rev().take_while(|at| {
        let line = lines[*at].trim_start();
        line.starts_with("//") || line.starts_with("#[")
    });
    above.into_iter().find(|at| is_reason(lines[*at]))
}

fn is_reason(line: &str) -> bool {
    line.trim_start().trim_start_matches(['/', '!']).trim_start().starts_with(REASON)
}

fn long_file(source: &Source) -> Vec<String> {
    let is_reason = |line: &&str| line.starts_with("//!") && is_reason(line);
    let reason = source.text.lines().position(|line| is_reason(&line));
    let is_tests = source.path.contains("/tests");
    let max = if reason.is_some() || is_tests { LONG_FILE_LINES } else { FILE_LINES };
    let count = count_without_tests(source);
    if count > max {
        return vec![source.at(0, &format!("{count} lines of code"))];
    }
    let needless = reason.filter(|_| count <= FILE_LINES || is_tests);
    needless.map(|at| source.at(at, "the file needs no reason")).into_iter().collect()
}

fn count_without_tests(source: &Source) -> usize {
    let end = source.without_tests().len();
    let lines = source.code_lines().into_iter().zip(&source.starts);
    lines.filter(|(is_code, start)| *is_code && **start < end).count()
}

impl Source {
    /// For each line, whether it has code, without `use`.
    fn code_lines(&self) -> Vec<bool> {
        let mut code = self.code.clone().into_bytes();
        for (at, word) in self.words() {
            let line = self.code[self.starts[self.line(at)]..at].trim();
            let is_statement =
                line.is_empty() || line == "pub" || line.starts_with("pub(") && line.ends_with(')');
            if word == "use" && is_statement {
                let len = self.code[at..].find(';').map_or(0, |len| len + 1);
                let start = self.starts[self.line(at)];
                let blank = |octet: &mut u8| {
                    if *octet != b'\n' {
                        *octet = b' ';
                    }
                };
                code[start..at + len].iter_mut().for_each(blank);
            }
        }
        code.split(|octet| *octet == b'\n').map(|line| !line.trim_ascii().is_empty()).collect()
    }
}

// --- the rules on samples ---

fn function(lines: usize) -> String {
    format!("fn f(a: [u8; 4]) {{\n{}}}\n", "    g();\n".repeat(lines - 2))
}

#[test]
fn rule_function_length() {
    let found = |text: &str| lines_of(&long_functions, "src/x.rs", text);
    assert_eq!(found(&format!("\n{}", function(FUNCTION_LINES))), NONE);
    assert_eq!(found(&format!("\n{}", function(FUNCTION_LINES + 1))), [2]);
    let many = "    g();\n".repeat(100);
    assert_eq!(found(&format!("fn f() {{\n    \"}}\"; '}}'; // }}\n{many}}}\n")), [1]);
    assert_eq!(found(&format!("impl T {{\n    fn none();\n    fn f<'a>() {{\n{many}}}}}")), [3]);
    assert_eq!(found(&format!("fn f<A, B>(a: A) where A: X, B: Y {{\n{many}}}")), [1]);
    let declared = format!("trait T {{\n    fn f();\n}}\ntype F = fn(u8);\nmod m {{\n{many}}}");
    assert_eq!(found(&declared), NONE);
    // Comments, blank lines and `use` do not count; functions of tests do.
    let uses = "    use a::{\n        b,\n    };\n".repeat(9);
    let empty = format!("fn f() {{\n{uses}{}{}}}", "    // a\n".repeat(70), "\n".repeat(70));
    assert_eq!(found(&empty), NONE);
    assert_eq!(found(&format!("#[cfg(test)]\nmod tests {{\nfn f() {{\n{many}}}\n}}")), [3]);
}

#[test]
fn rule_function_reasons() {
    let found = |text: &str| lines_of(&long_functions, "src/x.rs", text);
    let with = |above: &str, lines: usize| found(&format!("{above}{}", function(lines)));
    for above in [
        "// Long because it is a table.\n",
        "/// Does.\n///\n/// Long because it is a table.\n#[test]\n",
    ] {
        let first = above.lines().count() + 1;
        assert_eq!(with(above, LONG_FUNCTION_LINES), NONE, "{above}");
        assert_eq!(with(above, LONG_FUNCTION_LINES + 1), [first], "{above}");
        assert_eq!(with(above, FUNCTION_LINES + 1), NONE, "{above}");
        let reason = above.lines().position(|line| line.contains("Long")).expect("a reason") + 1;
        assert_eq!(with(above, FUNCTION_LINES), [reason], "a reason that is not needed: {above}");
    }
    // A reason that is not above the function is none.
    assert_eq!(with("// Long because of x.\n\n", FUNCTION_LINES + 1), [3, 1]);
    assert_eq!(with("// It is long because of x.\n", FUNCTION_LINES + 1), [2]);
    assert_eq!(with("//! Long because of x.\n\n", FUNCTION_LINES + 1), [3], "a reason of the file");
}

#[test]
fn rule_file_length() {
    let with = |first: &str, lines: usize| format!("{first}\n{}", "f();\n".repeat(lines));
    let reason = "//! Long because of its table.";
    for (path, first, lines, expected) in [
        ("src/x.rs", "//! Short.", FILE_LINES, &[][..]),
        ("src/x.rs", "//! Short.", FILE_LINES + 1, &[1]),
        ("src/x.rs", reason, LONG_FILE_LINES, &[]),
        ("src/x.rs", reason, LONG_FILE_LINES + 1, &[1]),
        ("src/x.rs", reason, FILE_LINES + 1, &[]),
        ("src/x.rs", reason, FILE_LINES, &[1]),
        ("src/x/tests.rs", "//! Short.", LONG_FILE_LINES, &[]),
        ("src/x/tests.rs", "//! Short.", LONG_FILE_LINES + 1, &[1]),
        ("src/x/tests.rs", reason, LONG_FILE_LINES, &[1]),
    ] {
        let found = lines_of(&long_file, path, &with(first, lines));
        assert_eq!(found, expected, "{path} {first} {lines}");
    }
}

#[test]
fn rule_lengths_count_code() {
    let tests = format!("fn f() {{}}\n#[cfg(test)]\nmod tests {{\n{}}}", "    g();\n".repeat(9));
    for (text, expected) in [
        ("", 0),
        ("\n\n", 0),
        ("// a\n/// b\nfn f() {}\n", 1),
        (&tests, 1),
        ("use a::b;\npub use c;\npub(super) use d::{\n    e,\n    f,\n};\nfn f() {}", 1),
        ("fn f() -> impl T + use<'a> {\n    user();\n    g(use_it);\n}", 4),
        ("fn f() {\n    use a::b;\n    b();\n}", 3),
    ] {
        assert_eq!(count_without_tests(&Source::new("src/x.rs", text)), expected, "{text}");
    }
}
