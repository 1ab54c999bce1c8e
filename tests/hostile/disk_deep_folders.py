#: about = "makes ten thousand folders in folders"
#: outcome = "succeeded"
#: flags = ["--disk", "128MiB"]
#: seconds = 60
#: stdout = ["10000 deep"]
import os
for _ in range(10_000):
    os.mkdir("d")
    os.chdir("d")
print("10000 deep")
