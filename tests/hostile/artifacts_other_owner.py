#: about = "gives its artifacts away, and makes them run as another"
#: outcome = "succeeded"
#: kept = ["mine"]
#: stdout = ["3 refused"]
import os
os.makedirs("artifacts", exist_ok=True)
open("artifacts/mine", "w").write("x")
os.chmod("artifacts/mine", 0o6777)
refused = 0
for owner, group in ((0, -1), (-1, 0), (50001, 50001)):
    try:
        os.chown("artifacts/mine", owner, group)
        print("REACHED", owner, group)
    except OSError:
        refused += 1
print(refused, "refused")
