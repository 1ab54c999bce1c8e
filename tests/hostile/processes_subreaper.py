#: about = "makes itself the reaper of orphans and takes the death signal away, then ends"
#: outcome = "failed"
#: exit = 5
#: seconds = 20
import ctypes, os, time
libc = ctypes.CDLL(None)
libc.prctl(36, 1, 0, 0, 0)
for _ in range(4):
    if os.fork() == 0:
        libc.prctl(1, 0, 0, 0, 0)
        libc.prctl(36, 1, 0, 0, 0)
        os.setsid()
        if os.fork() == 0:
            os.setsid()
        time.sleep(100)
time.sleep(0.2)
os._exit(5)
