#: about = "turns off what makes attacks on other programs harder"
#: outcome = "succeeded"
#: stdout = ["tried 3"]
import ctypes
libc = ctypes.CDLL(None, use_errno=True)
for name, value in {"ADDR_NO_RANDOMIZE": 0x0040000, "READ_IMPLIES_EXEC": 0x0400000, "MMAP_PAGE_ZERO": 0x0100000}.items():
    if libc.syscall(135, ctypes.c_ulong(value)) >= 0:
        print("REACHED", name)
print("tried 3")
