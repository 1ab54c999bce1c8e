#: about = "the socket family that wrote into the page cache of files it could only read"
#: outcome = "succeeded"
#: stdout = ["tried 4"]
import ctypes, socket
libc = ctypes.CDLL(None, use_errno=True)
for kind in (5, 5 | 0o2000000, 5 | 0o4000):
    if libc.syscall(41, 38, kind, 0) >= 0:
        print("REACHED AF_ALG by number", kind)
try:
    made = socket.socket(38, socket.SOCK_SEQPACKET)
    made.bind(("aead", "authencesn(hmac(sha256),cbc(aes))"))
    print("REACHED an algorithm")
except OSError:
    pass
print("tried 4")
