#: about = "five thousand artifacts"
#: outcome = "limit_exceeded"
#: limit = "artifacts"
#: message = ["1000"]
#: kept_count = 1000
import os
os.makedirs("artifacts", exist_ok=True)
for number in range(5000):
    open(f"artifacts/{number}", "w").write(str(number))
