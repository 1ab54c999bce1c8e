#: about = "forks until it is refused, and fails of it"
#: outcome = "limit_exceeded"
#: limit = "pids"
#: exception = "BlockingIOError"
import os, time
while True:
    if os.fork() == 0:
        time.sleep(100)
        os._exit(0)
