#: about = "one artifact that is larger than all of them may be"
#: outcome = "limit_exceeded"
#: limit = "artifacts"
#: worker = { "limits.default.artifacts" = "1MiB" }
#: kept = ["a.txt"]
#: left_out = { "big" = "limited to 1" }
import os
os.makedirs("artifacts", exist_ok=True)
open("artifacts/a.txt", "w").write("x")
open("artifacts/big", "wb").write(bytes(2 << 20))
