#: about = "a child stops everything that it may, again and again"
#: outcome = "timed_out"
#: flags = ["--time-limit", "2s"]
#: seconds = 12
import os, signal, time
if os.fork() == 0:
    os.setsid()
    while True:
        os.kill(-1, signal.SIGSTOP)
        time.sleep(0.001)
time.sleep(100)
