#: about = "ignores every signal that can be ignored, in a tree of sessions"
#: outcome = "timed_out"
#: flags = ["--time-limit", "2s"]
#: seconds = 12
import os, signal, time
def deaf():
    for number in range(1, 65):
        try:
            signal.signal(number, signal.SIG_IGN)
        except (OSError, ValueError):
            pass
deaf()
for _ in range(4):
    if os.fork() == 0:
        os.setsid()
        if os.fork():
            os._exit(0)
        deaf()
        while True:
            time.sleep(1)
while True:
    pass
