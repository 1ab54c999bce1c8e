#: about = "prints what drives a terminal: colours, titles, the clipboard, answers typed for the reader, turned text"
#: outcome = "failed"
#: exception = "RuntimeError"
#: checks = ["logs_printable"]
import os
attacks = [
    b"\x1b[2J\x1b[H", b"\x1b]0;owned\x07", b"\x1b]52;c;cm0gLXJmIC8=\x07", b"\x1b[6n", b"\x1bP$q\"p\x1b\\", b"\x9b31m",
    b"\x1b[?1049h", "\u202emoc.live\u202c".encode(), b"\rroot@host# ", b"\x08" * 40, b"\x1b]8;;file:///etc/shadow\x1b\\x\x1b]8;;\x1b\\",
    b"\x00\x01\x02\x7f", "\u2066x\u2069\u0085\u009d0;t\u009c".encode(),
]
for attack in attacks:
    os.write(1, attack + b"\n")
    os.write(2, attack + b"\n")
raise RuntimeError("\x1b]0;owned\x07" + "\x1b[2J and the rest")
