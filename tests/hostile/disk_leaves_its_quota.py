#: about = "asks the file system to count it elsewhere, to grow, to freeze, to shut down, and then fills it all the same"
#: outcome = "limit_exceeded"
#: limit = "disk"
#: stdout = ["tried 11"]
#: exception = "OSError"
import ctypes, fcntl, os
libc = ctypes.CDLL(None, use_errno=True)
file = os.open("mine", os.O_CREAT | os.O_RDWR)
folder = os.open(".", os.O_RDONLY)
numbers = {
    "FS_IOC_FSSETXATTR (another project)": (0x401C5820, bytes(12) + (7).to_bytes(4, "little") + bytes(12)),
    "FS_IOC_SETFLAGS append": (0x40086602, (0x20).to_bytes(8, "little")),
    "FS_IOC_SETFLAGS immutable": (0x40086602, (0x10).to_bytes(8, "little")),
    "FS_IOC_SETFLAGS journalled": (0x40086602, (0x4000).to_bytes(8, "little")),
    "EXT4_IOC_RESIZE_FS": (0x40086610, (1 << 30).to_bytes(8, "little")),
    "EXT4_IOC_GROUP_EXTEND": (0x40086607, (1 << 30).to_bytes(8, "little")),
    "FIFREEZE": (0xC0045877, bytes(8)),
    "FITRIM": (0xC0185879, bytes(24)),
    "EXT4_IOC_SHUTDOWN": (0x8004587D, bytes(8)),
    "EXT4_IOC_SWAP_BOOT": (0x6611, bytes(8)),
}
tried = 0
for name, (number, argument) in numbers.items():
    tried += 1
    for descriptor in (file, folder):
        try:
            fcntl.ioctl(descriptor, number, bytearray(argument))
            print("REACHED", name, flush=True)
        except OSError:
            pass
# file_setattr, since 6.17
tried += 1
area = ctypes.create_string_buffer((0).to_bytes(8, "little") + bytes(8) + (7).to_bytes(4, "little") + bytes(12))
if libc.syscall(469, -100, b"mine", area, 24 + 8, 0) == 0:
    print("REACHED file_setattr", flush=True)
print("tried", tried, flush=True)
while True:
    os.write(file, b"x" * (1 << 20))
