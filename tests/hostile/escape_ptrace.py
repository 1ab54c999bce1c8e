#: about = "traces its parent, its sibling and its child, and reads their memory and descriptors"
#: outcome = "succeeded"
#: flags = ["--time-limit", "10s"]
#: stdout = ["tried"]
import ctypes, os, time
libc = ctypes.CDLL(None, use_errno=True)
class Vector(ctypes.Structure):
    _fields_ = [("base", ctypes.c_void_p), ("length", ctypes.c_size_t)]
mine = ctypes.create_string_buffer(b"secret of the sibling", 64)
sibling = os.fork()
if sibling == 0:
    time.sleep(100)
    os._exit(0)
tried = 0
into = ctypes.create_string_buffer(64)
for target in (1, os.getppid(), sibling):
    local, remote = Vector(ctypes.addressof(into), 64), Vector(ctypes.addressof(mine), 64)
    descriptor = os.pidfd_open(target) if hasattr(os, "pidfd_open") and target == sibling else -1
    for name, call in {
        "PTRACE_ATTACH": (101, 16, target, 0, 0),
        "PTRACE_SEIZE": (101, 0x4206, target, 0, 0),
        "process_vm_readv": (310, target, ctypes.byref(local), 1, ctypes.byref(remote), 1, 0),
        "process_vm_writev": (311, target, ctypes.byref(local), 1, ctypes.byref(remote), 1, 0),
        "pidfd_getfd": (438, descriptor, 1, 0),
        "kcmp": (312, os.getpid(), target, 0, 1, 1),
        "process_madvise": (440, descriptor, ctypes.byref(remote), 1, 21, 0),
    }.items():
        tried += 1
        if libc.syscall(*call) >= 0:
            print("REACHED", name, target)
if libc.syscall(101, 0, 0, 0, 0) >= 0:
    print("REACHED PTRACE_TRACEME")
os.kill(sibling, 9)
print("tried", tried)
