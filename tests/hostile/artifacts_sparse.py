#: about = "an artifact of a terabyte that holds nothing"
#: outcome = "limit_exceeded"
#: limit = "artifacts"
#: seconds = 30
#: kept = []
#: left_out = { "sparse" = "limited to" }
import os
os.makedirs("artifacts", exist_ok=True)
with open("artifacts/sparse", "wb") as file:
    file.truncate(1 << 40)
