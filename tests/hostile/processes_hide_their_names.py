#: about = "children that look like PID 1 and like the runner, and outlive the program"
#: outcome = "succeeded"
#: seconds = 20
import ctypes, os, time
libc = ctypes.CDLL(None)
for name in (b"sandbox-init", b"kworker/0:0", b"(sd-pam) R 1 1", b"python3"):
    if os.fork() == 0:
        os.setsid()
        libc.prctl(15, name, 0, 0, 0)
        libc.prctl(4, 0, 0, 0, 0)
        time.sleep(100)
time.sleep(0.2)
