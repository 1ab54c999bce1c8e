#: about = "takes memory through memfd_create, where no file has a name"
#: outcome = "out_of_memory"
#: may_starve = true
#: flags = ["--time-limit", "20s", "--memory", "96MiB"]
#: signal = 9
import os
piece = b"x" * (16 << 20)
file = os.memfd_create("x")
while True:
    os.write(file, piece)
