#: about = "prints a gigabyte of lines: what is past the limit is counted as disk, and none of it is kept but the last"
#: outcome = "succeeded"
#: flags = ["--disk", "1200MiB", "--time-limit", "120s"]
#: worker = { "limits.default.stdout" = "1MiB" }
#: stdout_bytes = 1000000014
#: stdout_kept = 1114112
#: stdout = ["the last line"]
import os, sys
line = b"x" * 99 + b"\n"
block = line * 10_000
for _ in range(1_000):
    os.write(1, block)
print("the last line")
