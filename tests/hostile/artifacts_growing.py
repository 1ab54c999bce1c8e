#: about = "a child that lives on, writes to a file and replaces another while they would be read"
#: outcome = "succeeded"
#: seconds = 20
#: accounted = ["beats", "replaced"]
#: checks = ["beats_stopped"]
import os, time
os.makedirs("artifacts", exist_ok=True)
open("artifacts/replaced", "w").write("0")
if os.fork() == 0:
    os.setsid()
    beats = open("artifacts/beats", "w", buffering=1)
    while True:
        beats.write(f"{time.monotonic_ns()}\n")
        with open("artifacts/.beside", "w") as file:
            file.write("x" * 100_000)
        os.replace("artifacts/.beside", "artifacts/replaced")
time.sleep(0.3)
