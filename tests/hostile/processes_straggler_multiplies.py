#: about = "a child in a session of its own, without descriptors, that multiplies after the program's end"
#: outcome = "succeeded"
#: seconds = 20
#: stdout = ["the end"]
import os, time
if os.fork() == 0:
    os.setsid()
    if os.fork():
        os._exit(0)
    for number in range(16):
        try:
            os.close(number)
        except OSError:
            pass
    while True:
        try:
            if os.fork() == 0:
                os.setsid()
        except OSError:
            time.sleep(0.01)
time.sleep(0.3)
print("the end")
