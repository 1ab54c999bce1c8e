#: about = "looks for shared memory, queues and semaphores of others"
#: outcome = "succeeded"
#: stdout = ["tried"]
import ctypes, os
libc = ctypes.CDLL(None, use_errno=True)
tried = 0
for path in ("/proc/sysvipc/shm", "/proc/sysvipc/msg", "/proc/sysvipc/sem"):
    tried += 1
    try:
        rows = open(path).read().splitlines()[1:]
    except OSError:
        continue
    if rows:
        print("REACHED", path, rows)
for folder in ("/dev/shm", "/dev/mqueue"):
    tried += 1
    names = os.listdir(folder) if os.path.isdir(folder) else []
    if names:
        print("REACHED", folder, names)
print("tried", tried)
