#: about = "mounts, unmounts and changes its root"
#: outcome = "succeeded"
#: stdout = ["tried 14"]
import ctypes, os
libc = ctypes.CDLL(None, use_errno=True)
here = os.getcwd().encode()
os.makedirs("a/b", exist_ok=True)
calls = {
    "mount of a tmpfs": (165, b"none", b"a", b"tmpfs", 0, 0),
    "mount of proc": (165, b"proc", b"a", b"proc", 0, 0),
    "mount of cgroup": (165, b"cgroup", b"a", b"cgroup", 0, b"memory"),
    "bind": (165, b"/", b"a", 0, 4096, 0),
    "remount to write": (165, 0, b"/", 0, 32, 0),
    "propagation": (165, 0, b"/", 0, 1 << 20, 0),
    "umount of /proc": (166, b"/proc", 2),
    "umount of /in": (166, b"/in", 2),
    "pivot_root": (155, b"a", b"a/b"),
    "chroot": (161, b"a"),
    "fsopen": (430, b"tmpfs", 0),
    "open_tree": (428, -100, b"/", 1),
    "mount_setattr": (442, -100, b"/", 0, ctypes.create_string_buffer(32), 32),
    "swapon": (167, b"a", 0),
}
for name, call in calls.items():
    if libc.syscall(*call) >= 0:
        print("REACHED", name)
print("tried", len(calls))
