#: about = "stops its children and itself"
#: outcome = "timed_out"
#: flags = ["--time-limit", "2s"]
#: seconds = 12
import os, signal, time
for _ in range(4):
    if os.fork() == 0:
        os.setsid()
        os.kill(os.getpid(), signal.SIGSTOP)
        time.sleep(100)
time.sleep(0.2)
os.kill(os.getpid(), signal.SIGSTOP)
