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

/// An error with its causes on one line, each cause once: libraries differ in whether an error's text holds its source's.
#[must_use]
pub fn chain(error: &dyn std::error::Error, longest_chars: usize) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        if !text.contains(&cause_text) {
            text = format!("{text}: {cause_text}");
        }
        source = cause.source();
    }
    one_line(&text, longest_chars)
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
    fn each_cause_is_told_once() {
        #[derive(Debug)]
        struct Outer(&'static str, std::io::Error);
        impl std::fmt::Display for Outer {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(self.0)
            }
        }
        impl std::error::Error for Outer {
            fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
                Some(&self.1)
            }
        }
        let with = |text| chain(&Outer(text, std::io::Error::other("no route")), 40);
        assert_eq!(with("cannot connect"), "cannot connect: no route");
        assert_eq!(with("cannot connect: no route"), "cannot connect: no route");
    }

    #[test]
    fn escapes_do_not_reach_a_terminal() {
        assert_eq!(printable("a\x1b[31mb\u{9b}c\r\n"), "a\\u{1b}[31mb\\u{9b}c\\r\n");
        assert_eq!(one_line("a\n  b\tc", 10), "a b c");
        assert_eq!(one_line("abcdef", 4), "abc…");
        assert_eq!(tail("one\ntwo\nthree", 8), "three");
        assert_eq!(tail("ééé", 3), "é");
        assert_eq!(tail("short", 10), "short");
    }

    #[test]
    fn any_text_is_made_safe_once_and_for_all() {
        let mut random = 0x9E37_79B9_7F4A_7C15_u64;
        let mut below = |end: u64| {
            random ^= random >> 12;
            random ^= random << 25;
            random ^= random >> 27;
            random.wrapping_mul(0x2545_F491_4F6C_DD1D) % end
        };
        let safe =
            |c: char| !c.is_control() && !matches!(c, '\u{202A}'..='\u{202E}' | '\u{2066}'..='\u{2069}');
        let asked = std::env::var("AUTORESEARCH_FUZZ_CASES").ok().and_then(|text| text.parse().ok());
        let mut text = String::new();
        for _ in 0..asked.unwrap_or(200_000_u32) {
            text.clear();
            for _ in 0..below(20) {
                // What stands near the edges of what is refused, and anything else.
                let code = match below(4) {
                    0 => below(0x20),
                    1 => 0x7E + below(0x24),
                    2 => 0x2028 + below(0x44),
                    _ => below(0x11_0000),
                };
                text.extend(char::from_u32(code as u32));
            }
            let shown = printable(&text);
            assert!(shown.chars().all(|c| safe(c) || c == '\n' || c == '\t'), "{text:?}");
            assert!(shown.len() <= 10 * text.len());
            assert_eq!(printable(&shown), shown, "twice is once");
            let line = one_line(&text, 12);
            assert!(line.chars().count() <= 12 && line.chars().all(safe), "{text:?}");
            assert!(text.ends_with(tail(&text, below(30) as usize)));
        }
    }
}
