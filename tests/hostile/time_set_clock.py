#: about = "sets the clock"
#: outcome = "succeeded"
#: stdout = ["tried 5"]
import ctypes, time
libc = ctypes.CDLL(None, use_errno=True)
class Time(ctypes.Structure):
    _fields_ = [("seconds", ctypes.c_long), ("rest", ctypes.c_long)]
later = Time(int(time.time()) + 86400, 0)
zeros = ctypes.create_string_buffer(512)
ctypes.memmove(zeros, (1).to_bytes(4, "little"), 4)  # ADJ_OFFSET
calls = {
    "clock_settime": (227, 0, ctypes.byref(later)),
    "clock_settime of TAI": (227, 11, ctypes.byref(later)),
    "settimeofday": (164, ctypes.byref(later), 0),
    "adjtimex": (159, zeros),
    "clock_adjtime": (305, 0, zeros),
}
tried = 0
for name, call in calls.items():
    tried += 1
    if libc.syscall(*call) >= 0:
        print("REACHED", name)
print("tried", tried)
