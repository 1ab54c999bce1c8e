#: about = "folders and files of mode 000"
#: outcome = "succeeded"
#: accounted = ["open.txt", "shut", "shut.txt"]
import os
os.makedirs("artifacts/shut", exist_ok=True)
open("artifacts/open.txt", "w").write("x")
open("artifacts/shut/x", "w").write("x")
open("artifacts/shut.txt", "w").write("x")
for path in ("artifacts/shut/x", "artifacts/shut", "artifacts/shut.txt"):
    os.chmod(path, 0)
