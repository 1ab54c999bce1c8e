#: about = "writes more metrics than are kept"
#: outcome = "succeeded"
#: worker = { "limits.default.metrics" = "256KiB", "limits.default.metric_points" = "1000" }
#: points_kept = 1000
#: notes = ["dropped"]
import os
lines = b"".join(b'{"t":%d,"step":%d,"v":{"loss":"0.5"}}\n' % (n, n) for n in range(1000))
for _ in range(100):
    os.write(3, lines)
