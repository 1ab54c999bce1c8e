#: about = "an artifact below two thousand folders"
#: outcome = "limit_exceeded"
#: limit = "artifacts"
#: kept = ["top.txt"]
#: message = ["deep"]
import os
os.makedirs("artifacts", exist_ok=True)
os.chdir("artifacts")
open("top.txt", "w").write("x")
for _ in range(2000):
    os.mkdir("d")
    os.chdir("d")
open("bottom.txt", "w").write("x")
