//! Text that came from a sandbox or a model, made safe for a terminal and bounded.

/// Replaces control characters (terminal escapes among them) except newline and tab by `\u{FFFD}`-free escapes, so
/// that hostile output cannot drive a terminal.
#[must_use]
pub fn printable(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '\n' | '\t' => out.push(c),
            // C0, DEL, C1, and the marks that turn the direction of text.
            c if c.is_control() || matches!(c, '\u{202A}'..='\u{202E}' | '\u{2066}'..='\u{2069}') => {
                out.extend(c.escape_default());
            }
            c => out.push(c),
        }
    }
    out
}

/// As [`printable`], from bytes, on one line.
#[must_use]
pub fn one_line(text: &str, longest_chars: usize) -> String {
    let mut line: String = printable(text).split_whitespace().collect::<Vec<_>>().join(" ");
    if line.chars().count() > longest_chars {
        line = line.chars().take(longest_chars.saturating_sub(1)).collect();
        line.push('…');
    }
    line
}

/// The last `longest` bytes of a text, cut where a line begins if there is one, else where a character does.
#[must_use]
pub fn tail(text: &str, longest: usize) -> &str {
    if text.len() <= longest {
        return text;
    }
    let mut from = text.len() - longest;
    while !text.is_char_boundary(from) {
        from += 1;
    }
    match text[from..].find('\n') {
        Some(newline) if from + newline + 1 < text.len() => &text[from + newline + 1..],
        _ => &text[from..],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn escapes_do_not_reach_a_terminal() {
        assert_eq!(printable("a\x1b[31mb\u{9b}c\r\n"), "a\\u{1b}[31mb\\u{9b}c\\r\n");
        assert_eq!(one_line("a\n  b\tc", 10), "a b c");
        assert_eq!(one_line("abcdef", 4), "abc…");
        assert_eq!(tail("one\ntwo\nthree", 8), "three");
        assert_eq!(tail("ééé", 3), "é");
        assert_eq!(tail("short", 10), "short");
    }
}
