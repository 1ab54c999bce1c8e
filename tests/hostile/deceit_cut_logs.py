#: about = "cuts, replaces, moves and overwrites its own logs"
#: outcome = "failed"
#: exit = 6
#: stdout = ["the first line\nthe last line\n"]
import ctypes, fcntl, os, mmap
libc = ctypes.CDLL(None, use_errno=True)
os.write(1, b"the first line\n")
reached = []
for descriptor in (1, 2, 3):
    def worked(what, call):
        try:
            call()
            reached.append(what)
        except (OSError, ValueError):
            pass
    worked("ftruncate", lambda: os.ftruncate(descriptor, 0))
    path = f"/proc/self/fd/{descriptor}"
    worked("open to truncate", lambda: os.open(path, os.O_WRONLY | os.O_TRUNC))
    worked("open to write anywhere", lambda: os.open(path, os.O_WRONLY))
    worked("open to read and write", lambda: os.open(path, os.O_RDWR))
    worked("chmod", lambda: os.fchmod(descriptor, 0o777))
    worked("change of flags", lambda: fcntl.ioctl(descriptor, 0x40086602, bytearray(8)))
    worked("punched hole", lambda: None if libc.fallocate(descriptor, 3, ctypes.c_long(0), ctypes.c_long(4096)) == 0 else os.fstat(-1))
    worked("collapsed range", lambda: None if libc.fallocate(descriptor, 8, ctypes.c_long(0), ctypes.c_long(4096)) == 0 else os.fstat(-1))
    worked("no append", lambda: fcntl.fcntl(descriptor, fcntl.F_SETFL, 0))
    worked("a map", lambda: mmap.mmap(descriptor, 4096, mmap.MAP_SHARED, mmap.PROT_WRITE))
for folder in ("/logs", "/in", "/in/files"):
    for name in ("stdout", "stderr", "metrics", "init", "run.json", "program.py"):
        path = f"{folder}/{name}"
        for what, call in (("rename", lambda: os.rename(path, path + "x")), ("unlink", lambda: os.unlink(path)), ("write", lambda: open(path, "w")),
                           ("link", lambda: os.symlink("/etc/passwd", path + "y"))):
            try:
                call()
                reached.append(f"{what} {path}")
            except OSError:
                pass
os.write(1, b"the last line\n")
for what in reached:
    os.write(1, f"REACHED {what}\n".encode())
os._exit(6)
