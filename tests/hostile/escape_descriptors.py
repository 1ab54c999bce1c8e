#: about = "uses descriptors that somebody left open"
#: outcome = "succeeded"
#: stdout = ["looked at"]
import os
looked = 0
for name in os.listdir("/proc/self/fd"):
    try:
        target = os.readlink("/proc/self/fd/" + name)
    except OSError:
        continue
    looked += 1
    if target not in ("/dev/null", "/logs/stdout", "/logs/stderr", "/logs/metrics") and not target.startswith("/proc/"):
        print("REACHED", name, target)
    try:
        if os.path.isdir("/proc/self/fd/" + name) and not target.startswith("/proc/"):
            print("REACHED a folder", target)
    except OSError:
        pass
for path in ("/proc/1/fd", "/proc/1/fdinfo", "/proc/1/task/1/fd"):
    try:
        print("REACHED", path, os.listdir(path))
    except OSError:
        pass
print("looked at", looked)
