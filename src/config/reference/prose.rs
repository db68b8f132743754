//! Documentation as paragraphs, and these as comments of a file or as Markdown.

/// The maximum columns of a comment in the example file, so that it fits into 100 columns when it
/// is commented out once more.
const COLUMNS: usize = 98;

/// Joins the lines of a documentation to paragraphs and entries of lists. An empty paragraph
/// separates two.
pub(super) fn paragraphs(doc: &[&str]) -> Vec<String> {
    let mut found: Vec<String> = Vec::new();
    for line in doc {
        let text = line.trim();
        let continues = !text.is_empty() && !text.starts_with("- ");
        match found.last_mut().filter(|last| continues && !last.is_empty()) {
            Some(last) => *last = format!("{last} {text}"),
            None => found.push(text.to_owned()),
        }
    }
    // A list needs no empty line after it.
    let mut at = 1;
    while at < found.len() {
        match found[at].is_empty() && found[at - 1].starts_with("- ") {
            true => _ = found.remove(at),
            false => at += 1,
        }
    }
    found
}

/// Paragraphs as lines of a comment. Code is not broken.
pub(super) fn comment(paragraphs: &[String]) -> Vec<String> {
    let mut lines = Vec::new();
    for paragraph in paragraphs {
        let indent = if paragraph.starts_with("- ") { "  " } else { "" };
        let mut line = String::from("#");
        for word in words(paragraph) {
            if line.chars().count() + 1 + word.chars().count() > COLUMNS && line.len() > 2 {
                lines.push(std::mem::replace(&mut line, format!("#{indent}")));
            }
            line += " ";
            line += &word;
        }
        lines.push(line);
    }
    lines
}

/// The words of a text. A table in braces and a text in backticks are one word.
fn words(text: &str) -> Vec<String> {
    let mut words: Vec<String> = Vec::new();
    for word in text.split(' ').filter(|word| !word.is_empty()) {
        let is_open = |last: &&mut String| {
            let count = |mark: char| last.matches(mark).count();
            count('{') > count('}') || count('`') % 2 == 1
        };
        match words.last_mut().filter(is_open) {
            Some(last) => *last = format!("{last} {word}"),
            None => words.push(word.to_owned()),
        }
    }
    words
}

/// Paragraphs and entries of lists in Markdown.
pub(super) fn flow(paragraphs: &[String]) -> String {
    let mut text = String::new();
    let is_entry = |paragraph: &str| paragraph.starts_with("- ");
    for (index, paragraph) in paragraphs.iter().enumerate() {
        if index > 0 {
            let in_list = is_entry(paragraph) && is_entry(&paragraphs[index - 1]);
            text.push_str(if in_list { "\n" } else { "\n\n" });
        }
        text.push_str(&plain(paragraph));
    }
    text
}

/// A text in which Markdown sees no emphasis outside of code.
pub(super) fn plain(text: &str) -> String {
    let mut parts: Vec<String> = text.split('`').map(str::to_owned).collect();
    for part in parts.iter_mut().step_by(2) {
        *part = part.replace('*', "\\*");
    }
    parts.join("`")
}

/// A line as a comment.
pub(super) fn commented_out(line: &str) -> String {
    if line.is_empty() { "#".to_owned() } else { format!("# {line}") }
}
