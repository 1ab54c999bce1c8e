//! The exception in the last of standard error: class, message, traceback. The text is the program's own word; it
//! explains a failure and never makes a success of one.

/// The traceback's tail is cut to this.
pub const TRACEBACK_BYTES_MAX: usize = 16 << 10;
/// The exception's message is cut to this.
const MESSAGE_BYTES_MAX: usize = 2 << 10;
const HEADER: &str = "Traceback (most recent call last):";
/// What Python says of a program that it cannot compile.
const UNCOMPILED: [&str; 3] = ["SyntaxError", "IndentationError", "TabError"];

/// What a Python program's last traceback says.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Exception {
    /// Like `ValueError` or `torch.OutOfMemoryError`.
    pub class: String,
    /// Its text, bounded, safe for a terminal.
    pub message: String,
    /// From the last `Traceback` line, or the place of a syntax error, on; the end of it if it is long.
    pub traceback: String,
}

impl Exception {
    /// Whether the kernel refused a write because the disk was full.
    #[must_use]
    pub fn is_disk_full(&self) -> bool {
        self.message.contains("[Errno 28]") || self.message.contains("No space left on device")
    }

    /// Whether the framework says that the device's memory was used up.
    #[must_use]
    pub fn is_gpu_out_of_memory(&self) -> bool {
        let class = self.class.rsplit('.').next().unwrap_or_default();
        // torch.OutOfMemoryError (2.5 and later), torch.cuda.OutOfMemoryError (before).
        let of_torch = class == "OutOfMemoryError" && self.class.starts_with("torch.");
        let words = [
            "CUDA out of memory",
            "CUDA error: out of memory",
            "CUDNN_STATUS_ALLOC_FAILED",
            "CUBLAS_STATUS_ALLOC_FAILED",
            "HIP out of memory",
        ];
        of_torch || words.iter().any(|word| self.message.contains(word))
    }
}

/// Reads the last traceback in a tail of standard error; `None` where there is none.
#[must_use]
pub fn parse(stderr_tail: &[u8]) -> Option<Exception> {
    let text = String::from_utf8_lossy(stderr_tail);
    let framed = text.rfind(HEADER).and_then(|start| of_block(&text[start..], 1));
    // A program that cannot be compiled has no frames, and Python prints no header for it.
    framed.or_else(|| of_block(&text[uncompiled(&text)?..], 0))
}

/// Where the words on a program that does not compile begin: the place in the source, which is indented, and below
/// it the class, at the start of a line. Without a place they must be the last words.
fn uncompiled(text: &str) -> Option<usize> {
    let mut at = 0;
    let mut place = None;
    let mut found = None;
    for line in text.split_inclusive('\n') {
        if line.starts_with("  File \"") {
            place = Some(at);
        } else if UNCOMPILED.iter().any(|c| line.strip_prefix(c).is_some_and(|rest| rest.starts_with(": "))) {
            // Stops at the first character that is none, so that many such lines do not each read to the end.
            let last = || text[at + line.len()..].chars().all(char::is_whitespace);
            found = place.take().or_else(|| last().then_some(at));
        } else if !line.starts_with(' ') {
            place = None;
        }
        at += line.len();
    }
    found
}

/// The exception of a block of text, of which `header` lines come before the frames.
fn of_block(block: &str, header: usize) -> Option<Exception> {
    let mut lines = block.lines().enumerate().skip(header);
    // Frames are indented; the first line that is not, and that names a class, ends them.
    let (line, class, first) = lines.find_map(|(at, line)| {
        let (class, message) = match line.split_once(": ") {
            Some((class, message)) => (class, message),
            None => (line.strip_suffix(':').unwrap_or(line), ""),
        };
        is_class(class).then_some((at, class, message))
    })?;
    let mut message = first.to_owned();
    for more in block.lines().skip(line + 1) {
        if more.trim().is_empty() || message.len() > MESSAGE_BYTES_MAX {
            break;
        }
        message.push('\n');
        message.push_str(more);
    }
    Some(Exception {
        class: class.to_owned(),
        // Escaped first: an escape is up to six times as long as what it stands for.
        message: head(&kit::text::printable(head(&message, MESSAGE_BYTES_MAX)), MESSAGE_BYTES_MAX).to_owned(),
        traceback: bounded(&kit::text::printable(kit::text::tail(block, TRACEBACK_BYTES_MAX))),
    })
}

/// The end of a text, as a traceback is kept.
#[must_use]
pub fn bounded(text: &str) -> String {
    kit::text::tail(text, TRACEBACK_BYTES_MAX).to_owned()
}

fn head(text: &str, longest: usize) -> &str {
    let mut end = text.len().min(longest);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    &text[..end]
}

/// A dotted name of identifiers, as Python prints an exception's class.
fn is_class(text: &str) -> bool {
    let identifier = |part: &str| {
        let mut chars = part.chars();
        chars.next().is_some_and(|c| c.is_alphabetic() || c == '_')
            && chars.all(|c| c.is_alphanumeric() || c == '_')
    };
    text.len() <= 200 && text.split('.').all(identifier)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_last_of_a_chain() {
        let text = b"warming up\nTraceback (most recent call last):\n  File \"a.py\", line 1, in <module>\n    x()\n\
            KeyError: 'a'\n\nDuring handling of the above exception, another exception occurred:\n\n\
            Traceback (most recent call last):\n  File \"a.py\", line 3, in <module>\n    raise ValueError(\"b\")\n    \
            ^^^^^\nValueError: mat1 and mat2: 3x4 and 5x6\nsecond line\n";
        let exception = parse(text).unwrap();
        assert_eq!(exception.class, "ValueError");
        assert_eq!(exception.message, "mat1 and mat2: 3x4 and 5x6\nsecond line");
        assert!(exception.traceback.starts_with(HEADER) && !exception.traceback.contains("KeyError"));
        assert!(!exception.is_gpu_out_of_memory());
    }

    #[test]
    fn classes_without_a_message_and_in_a_module() {
        let block = |end: &str| format!("{HEADER}\n  File \"a.py\", line 1, in <module>\n    f()\n{end}\n");
        assert_eq!(parse(block("AssertionError").as_bytes()).unwrap().class, "AssertionError");
        let module = parse(block("subprocess.CalledProcessError: no").as_bytes()).unwrap();
        assert_eq!((module.class.as_str(), module.message.as_str()), ("subprocess.CalledProcessError", "no"));
        assert_eq!(parse(b"just words: here"), None);
        assert_eq!(parse(block("  indented only").as_bytes()), None);
    }

    #[test]
    fn a_program_that_does_not_compile_has_no_header() {
        let place = "  File \"/sandbox/in/code/main.py\", line 1\n    if True\n           ^\n";
        for (class, message) in [
            ("SyntaxError", "expected ':'"),
            ("IndentationError", "unexpected indent"),
            ("TabError", "inconsistent use of tabs and spaces in indentation"),
        ] {
            let text = format!("warming: up\n{place}{class}: {message}\n");
            let exception = parse(text.as_bytes()).unwrap();
            assert_eq!((exception.class.as_str(), exception.message.as_str()), (class, message));
            assert_eq!(exception.traceback, format!("{place}{class}: {message}\n"));
        }
        let bare = parse(b"SyntaxError: source code string cannot contain null bytes\n").unwrap();
        assert_eq!(bare.class, "SyntaxError");
        assert_eq!(parse(b"SyntaxError: of another program\nbut I go on\n"), None);
        assert_eq!(parse(b"SyntaxErrors: 3\n"), None);
        // One that was raised while the program ran has frames, and they are kept.
        let text =
            format!("{HEADER}\n  File \"a.py\", line 1, in <module>\n    import b\n{place}SyntaxError: x\n");
        assert!(parse(text.as_bytes()).unwrap().traceback.starts_with(HEADER));
    }

    #[test]
    fn gpu_memory_is_recognised() {
        for end in [
            "torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB.",
            "torch.cuda.OutOfMemoryError: CUDA out of memory.",
            "RuntimeError: CUDA error: out of memory",
            "RuntimeError: CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`",
        ] {
            let text = format!("{HEADER}\n  File \"a.py\", line 1\n{end}\n");
            assert!(parse(text.as_bytes()).unwrap().is_gpu_out_of_memory(), "{end}");
        }
        let text = format!("{HEADER}\n  File \"a.py\", line 1\nMemoryError: Unable to allocate\n");
        assert!(!parse(text.as_bytes()).unwrap().is_gpu_out_of_memory());
    }

    #[test]
    fn bounded_and_harmless() {
        let text = format!("{HEADER}\n{}ValueError: {}\x1b[2J", "  line\n".repeat(9000), "é".repeat(5000));
        let exception = parse(text.as_bytes()).unwrap();
        assert!(
            exception.traceback.len() <= TRACEBACK_BYTES_MAX && exception.message.len() <= MESSAGE_BYTES_MAX
        );
        assert!(!exception.traceback.contains('\x1b'));
    }

    proptest! {
        #[test]
        fn any_bytes_are_survived(bytes in proptest::collection::vec(any::<u8>(), 0..4000)) {
            let mut text = HEADER.as_bytes().to_vec();
            text.extend(bytes);
            for text in [&text[..], &text[HEADER.len()..]] {
                if let Some(exception) = parse(text) {
                    prop_assert!(exception.traceback.len() <= TRACEBACK_BYTES_MAX);
                }
            }
        }
    }
}
