#: about = "locks what it takes, so that the kernel cannot take it back"
#: outcome = "out_of_memory"
#: flags = ["--memory", "96MiB"]
#: signal = 9
import ctypes, mmap
libc = ctypes.CDLL(None, use_errno=True)
held = []
while True:
    area = mmap.mmap(-1, 1 << 20)
    libc.mlock(ctypes.c_void_p(ctypes.addressof(ctypes.c_char.from_buffer(area))), ctypes.c_size_t(1 << 20))
    for page in range(0, 1 << 20, 4096):
        area[page] = 1
    held.append(area)
