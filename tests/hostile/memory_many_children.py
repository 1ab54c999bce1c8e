#: about = "ten children that each keep below the limit and together do not"
#: outcome = "out_of_memory"
#: may_starve = true
#: flags = ["--time-limit", "20s", "--memory", "96MiB"]
#: exit = 1
#: message = ["a process of the program"]
import os, time
children = []
for _ in range(10):
    child = os.fork()
    if child == 0:
        held = b"x" * (24 << 20)
        time.sleep(3)
        os._exit(0)
    children.append(child)
ends = [os.waitpid(child, 0)[1] for child in children]
os._exit(1 if any(ends) else 0)
