#: about = "connects to abstract sockets of the host, whose names no file system guards"
#: outcome = "succeeded"
#: stdout = ["tried 15", "its own works"]
import socket
import autoresearch as ar
tried = 0
for name in (ar.params["abstract"], "/containerd-shim/x.sock", "/tmp/.X11-unix/X0", "dbus-system", "cuda-uvmfd-1"):
    for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM, socket.SOCK_SEQPACKET):
        tried += 1
        try:
            socket.socket(socket.AF_UNIX, kind).connect("\0" + name)
            print("REACHED", name, kind)
        except OSError:
            pass
# CUDA needs one of its own.
mine = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
mine.bind("\0mine")
mine.listen()
socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET).connect("\0mine")
print("tried", tried, "its own works")
