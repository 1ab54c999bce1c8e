#: about = "prints one line that never ends"
#: outcome = "succeeded"
#: flags = ["--disk", "256MiB"]
#: worker = { "limits.default.stdout" = "1MiB" }
#: stdout_bytes = 67108864
#: stdout_kept = 1114112
import os
for _ in range(64):
    os.write(1, b"x" * (1 << 20))
