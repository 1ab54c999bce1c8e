#: about = "a child in a session of its own that goes on printing and logging after the program's end"
#: outcome = "succeeded"
#: seconds = 20
#: stdout = ["the program's last word"]
import os, time
if os.fork() == 0:
    os.setsid()
    while True:
        os.write(1, b"from the grave\n")
        os.write(3, b'{"t":1,"v":{"late":"1.0"}}\n')
        time.sleep(0.005)
time.sleep(0.1)
print("the program's last word", flush=True)
os._exit(0)
