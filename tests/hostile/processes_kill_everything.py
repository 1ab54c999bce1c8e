#: about = "kills everything that it may, and goes on alone"
#: outcome = "succeeded"
#: stdout = ["alone"]
import os, signal, time
import autoresearch as ar
for _ in range(5):
    if os.fork() == 0:
        time.sleep(100)
for number in (signal.SIGTERM, signal.SIGKILL):
    try:
        os.kill(-1, number)
    except ProcessLookupError:
        pass
    if number == signal.SIGTERM:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
# The number that a process of the host has there.
for target in (ar.params["pid"], -ar.params["pid"], 1, -1):
    try:
        os.kill(target, 0)
        if target != -1:
            print("REACHED", target)
    except OSError:
        pass
print("alone")
