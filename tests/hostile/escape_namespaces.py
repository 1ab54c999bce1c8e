#: about = "makes and enters namespaces, a user namespace first of all"
#: outcome = "succeeded"
#: stdout = ["tried"]
import ctypes, os
libc = ctypes.CDLL(None, use_errno=True)
flags = {"user": 0x10000000, "mount": 0x20000, "pid": 0x20000000, "net": 0x40000000, "ipc": 0x8000000, "uts": 0x4000000, "cgroup": 0x2000000, "time": 0x80}
tried = 0
for name, flag in flags.items():
    for extra in (0, 0x10000000):
        tried += 3
        if libc.syscall(272, flag | extra) == 0:
            print("REACHED unshare", name)
        # The old call's low byte is a signal: there is no time namespace in it.
        child = -1 if flag == 0x80 else libc.syscall(56, flag | extra | 17, 0, 0, 0, 0)
        if child == 0:
            os._exit(0)
        if child > 0:
            print("REACHED clone", name)
            os.waitpid(child, 0)
        arguments = (ctypes.c_uint64 * 11)(flag | extra, 0, 0, 0, 17, 0, 0, 0, 0, 0, 0)
        child = libc.syscall(435, ctypes.byref(arguments), 88)
        if child == 0:
            os._exit(0)
        if child > 0:
            print("REACHED clone3", name)
            os.waitpid(child, 0)
for pid in ("1", "self"):
    for name in os.listdir("/proc/self/ns"):
        tried += 1
        try:
            descriptor = os.open(f"/proc/{pid}/ns/{name}", os.O_RDONLY)
        except OSError:
            continue
        if libc.syscall(308, descriptor, 0) == 0:
            print("REACHED setns", pid, name)
print("tried", tried)
