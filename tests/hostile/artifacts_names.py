#: about = "names with newlines, escapes, dots, 255 bytes, no UTF-8, and those of the worker's own files"
#: outcome = "succeeded"
#: checks = ["logs_printable"]
#: accounted = ["-rf *", "..x", "...", ".partial", ".hidden", "a b"]
#: left_out = { "new line" = "control characters" }
import os, sys
os.makedirs("artifacts", exist_ok=True)
names = [b"new\nline", b"\x1b[2J", b"-rf *", b"..x", b"...", b".partial", b".hidden", b"\xff\xfe", b"n" * 255, b"$(reboot)", b"a b", b"\\..\\x"]
for name in names:
    with open(b"artifacts/" + name, "wb") as file:
        file.write(name)
folder = b"artifacts"
for _ in range(6):
    folder += b"/" + b"f" * 200
    os.mkdir(folder)
open(folder + b"/deep", "w").write("x")
print("made", len(names))
