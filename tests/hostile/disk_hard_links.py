#: about = "gives one file twenty thousand names"
#: outcome = "succeeded"
#: seconds = 60
#: stdout = ["20000 names"]
import os
open("file", "w").write("x")
os.mkdir("names")
for number in range(20_000):
    os.link("file", f"names/{number}")
print(os.stat("file").st_nlink - 1, "names")
