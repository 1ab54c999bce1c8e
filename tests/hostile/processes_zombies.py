#: about = "leaves dead children unread"
#: outcome = "succeeded"
#: stdout = ["40 dead"]
import os, time
for _ in range(40):
    if os.fork() == 0:
        os._exit(1)
time.sleep(0.2)
print("40 dead")
