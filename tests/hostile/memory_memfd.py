#: about = "takes memory through memfd_create, where no file has a name"
#: outcome = "out_of_memory"
#: flags = ["--memory", "96MiB"]
#: signal = 9
import os
file = os.memfd_create("x")
while True:
    os.write(file, b"x" * (1 << 20))
