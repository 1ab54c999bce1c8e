#: about = "loads programs into the kernel and reads its counters"
#: outcome = "succeeded"
#: stdout = ["tried 8"]
import ctypes
libc = ctypes.CDLL(None, use_errno=True)
array = ctypes.create_string_buffer((2).to_bytes(4, "little") + (4).to_bytes(4, "little") + (4).to_bytes(4, "little") + (1).to_bytes(4, "little"), 128)
socket_filter = ctypes.create_string_buffer((1).to_bytes(4, "little"), 128)
event = ctypes.create_string_buffer((1).to_bytes(4, "little") + (128).to_bytes(4, "little"), 128)
calls = {
    "bpf: a map": (321, 0, array, 128),
    "bpf: a program": (321, 5, socket_filter, 128),
    "perf_event_open": (298, event, 0, -1, -1, 0),
    "perf_event_open of the machine": (298, event, -1, 0, -1, 0),
    "fanotify_init": (300, 0, 0),
    "lookup_dcookie": (212, 0, event, 128),
    "kexec_file_load": (320, 0, 0, 0, 0, 0),
    "landlock with a bad size": (444, event, 7, 0),
}
for name, call in calls.items():
    if libc.syscall(*call) >= 0:
        print("REACHED", name)
print("tried", len(calls))
