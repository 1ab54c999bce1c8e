#: about = "floods PID 1 with its own orders: none is obeyed, and the limit is not held up"
#: outcome = "timed_out"
#: flags = ["--time-limit", "2s"]
#: seconds = 12
import os
for _ in range(3):
    if os.fork() == 0:
        break
while True:
    for number in (10, 12, 15, 34, 35, 40):
        try: os.kill(1, number)
        except OSError: pass
