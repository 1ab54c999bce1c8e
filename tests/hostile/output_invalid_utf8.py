#: about = "prints every byte there is, and texts that are cut in the middle of a character"
#: outcome = "succeeded"
#: stdout_bytes = 25603
#: checks = ["logs_printable"]
import os
for _ in range(100):
    os.write(1, bytes(range(256)))
os.write(2, b"\xff\xfe\xc3(\xe2\x82" * 100)
os.write(1, b"\xf0\x9f\x98")
