#: about = "a FIFO and a socket where files are read, and devices that it tries to make"
#: outcome = "succeeded"
#: seconds = 30
#: kept = []
#: stdout = ["0 devices"]
#: [left_out]
#: "fifo" = "FIFO"
#: "socket" = "socket"
import os, socket, stat
os.makedirs("artifacts", exist_ok=True)
os.mkfifo("artifacts/fifo")
socket.socket(socket.AF_UNIX).bind("artifacts/socket")
made = 0
for name, kind, major, minor in (("mem", stat.S_IFCHR, 1, 1), ("zero", stat.S_IFCHR, 1, 5), ("loop", stat.S_IFBLK, 7, 0), ("sda", stat.S_IFBLK, 8, 0)):
    try:
        os.mknod("artifacts/" + name, 0o666 | kind, os.makedev(major, minor))
        made += 1
    except OSError:
        pass
print(made, "devices")
