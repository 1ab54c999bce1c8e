#: about = "uses the kernel's keyrings, which outlive a sandbox"
#: outcome = "succeeded"
#: stdout = ["tried 6"]
import ctypes
libc = ctypes.CDLL(None, use_errno=True)
calls = {
    "add_key": (248, b"user", b"x", b"y", 1, -3),
    "add_key for the user": (248, b"user", b"x", b"y", 1, -4),
    "request_key": (249, b"user", b"x", 0, -3),
    "keyctl join": (250, 1, b"x"),
    "keyctl id": (250, 0, -3, 1),
    "keyctl persistent": (250, 22, -1, -3),
}
for name, call in calls.items():
    if libc.syscall(*call) >= 0:
        print("REACHED", name)
print("tried", len(calls))
