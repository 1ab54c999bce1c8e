#: about = "takes page faults into its own hands, to win races against the kernel"
#: outcome = "succeeded"
#: stdout = ["tried 3"]
import ctypes, os
libc = ctypes.CDLL(None, use_errno=True)
for flags in (0, 1):
    if libc.syscall(323, flags) >= 0:
        print("REACHED userfaultfd", flags)
try:
    os.open("/dev/userfaultfd", os.O_RDWR)
    print("REACHED /dev/userfaultfd")
except OSError:
    pass
print("tried 3")
