#: about = "prints until the disk is full: neither the traceback nor a metric is silenced"
#: outcome = "limit_exceeded"
#: limit = "disk"
#: worker = { "limits.default.stdout" = "1MiB" }
#: exception = "OSError"
#: stderr = ["No space left"]
#: metrics = { last = 4.0 }
import os
import autoresearch as ar
try:
    while True:
        os.write(1, b"x" * (1 << 20))
finally:
    ar.log(last=4.0)
