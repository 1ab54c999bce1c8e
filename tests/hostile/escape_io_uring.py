#: about = "asks for io_uring, which goes around a filter of system calls"
#: outcome = "succeeded"
#: stdout = ["tried 3"]
import ctypes
libc = ctypes.CDLL(None, use_errno=True)
parameters = ctypes.create_string_buffer(120)
for name, call in {"setup": (425, 4, parameters), "enter": (426, 0, 1, 0, 0, 0), "register": (427, -1, 0, 0, 0)}.items():
    if libc.syscall(*call) >= 0:
        print("REACHED io_uring_" + name)
    elif name == "setup" and ctypes.get_errno() not in (1, 38):
        print("REACHED the kernel's own check of io_uring_setup:", ctypes.get_errno())
print("tried 3")
