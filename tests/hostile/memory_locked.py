#: about = "locks what it takes, so that the kernel cannot take it back"
#: outcome = "out_of_memory"
#: may_starve = true
#: flags = ["--time-limit", "20s", "--memory", "96MiB"]
#: signal = 9
import ctypes, mmap
libc = ctypes.CDLL(None, use_errno=True)
held, piece = [], b"x" * (4 << 20)
while True:
    area = mmap.mmap(-1, len(piece))
    libc.mlock(ctypes.c_void_p(ctypes.addressof(ctypes.c_char.from_buffer(area))), ctypes.c_size_t(len(piece)))
    area.write(piece)
    held.append(area)
