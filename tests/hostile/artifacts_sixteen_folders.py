#: about = "artifacts as deep and with names as long as they may be, and one that is named as ours would be on the way"
#: outcome = "succeeded"
#: kept_count = 4
import os
os.makedirs("artifacts/" + "/".join("d" * 16), exist_ok=True)
for name in ("/".join("d" * 16) + "/deep", "n" * 255, "x", "x.part"):
    open("artifacts/" + name, "w").write(name)
