#: about = "administers the machine: modules, reboot, names, ports, accounting, the kernel's log"
#: outcome = "succeeded"
#: stdout = ["tried"]
import ctypes
libc = ctypes.CDLL(None, use_errno=True)
area = ctypes.create_string_buffer(256)
calls = {
    "init_module": (175, area, 256, b""), "finit_module": (313, 0, b"", 0), "delete_module": (176, b"loop", 0), "kexec_load": (246, 0, 0, 0, 0),
    "reboot": (169, 0xFEE1DEAD, 672274793, 0x89ABCDEF, 0), "sethostname": (170, b"owned", 5), "setdomainname": (171, b"owned", 5), "iopl": (172, 3), "ioperm": (173, 0, 1, 1),
    "acct": (163, b"/tmp/acct"), "quotactl": (179, 0x800001, b"/dev/loop0", 0, area), "syslog": (103, 3, area, 256), "vhangup": (153,), "swapoff": (168, b"/x"),
    "nfsservctl": (180, 0, 0, 0), "migrate_pages": (256, 1, 64, area, area), "move_pages": (279, 1, 0, 0, 0, 0, 0), "name_to_handle_at of nothing": (303, -1, b"", 0, 0, 0),
    "capset": (126, area, area),
}
for name, call in calls.items():
    if libc.syscall(*call) >= 0 and name != "move_pages":
        print("REACHED", name)
print("tried", len(calls))
