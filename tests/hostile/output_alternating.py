#: about = "writes to both streams in turn, a few bytes at a time"
#: outcome = "succeeded"
#: stdout_bytes = 200000
import os
for number in range(20_000):
    os.write(1, b"out       ")
    os.write(2, b"err       ")
