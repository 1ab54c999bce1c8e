#: about = "a child is killed for memory and the program goes on"
#: outcome = "succeeded"
#: flags = ["--memory", "96MiB"]
#: notes = ["memory"]
#: stdout = ["child ended by 9"]
import os
child = os.fork()
if child == 0:
    held = []
    while True:
        held.append(b"x" * (32 << 20))
print("child ended by", os.WTERMSIG(os.waitpid(child, 0)[1]))
