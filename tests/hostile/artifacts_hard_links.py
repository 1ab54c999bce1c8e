#: about = "artifacts that have a second name, also that of a file which is not its own"
#: outcome = "succeeded"
#: kept = ["single.txt"]
#: [left_out]
#: "one" = "more than one name"
#: "two" = "more than one name"
import os
os.makedirs("artifacts", exist_ok=True)
open("artifacts/single.txt", "w").write("x")
open("artifacts/one", "w").write("x")
os.link("artifacts/one", "artifacts/two")
for target in ("/etc/passwd", "/in/run.json", "/logs/stdout", "/proc/self/environ"):
    try:
        os.link(target, "artifacts/" + os.path.basename(target))
        print("REACHED a link to", target)
    except OSError:
        pass
