#: about = "ends with 0 when it is told that its time is over"
#: outcome = "timed_out"
#: flags = ["--time-limit", "1s"]
#: stdout = ["told"]
#: exit = 0
import os, signal, time
def told(*_):
    print("told", flush=True)
    os._exit(0)
signal.signal(signal.SIGTERM, told)
while True:
    time.sleep(0.1)
