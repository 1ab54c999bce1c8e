#: about = "a child is killed for memory and the program fails without it"
#: outcome = "out_of_memory"
#: may_starve = true
#: flags = ["--time-limit", "20s", "--memory", "96MiB"]
#: exit = 7
#: message = ["a process of the program"]
import os
child = os.fork()
if child == 0:
    held = []
    while True:
        held.append(b"x" * (32 << 20))
os.waitpid(child, 0)
os._exit(7)
