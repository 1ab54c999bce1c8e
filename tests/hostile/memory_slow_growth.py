#: about = "takes memory a little at a time, and would like to be swapped out"
#: outcome = "out_of_memory"
#: may_starve = true
#: flags = ["--time-limit", "20s", "--memory", "96MiB"]
#: signal = 9
import os, time
held = []
while True:
    held.append(os.urandom(2 << 20))
    time.sleep(0.005)
