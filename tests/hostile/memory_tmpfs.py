#: about = "looks for a tmpfs that has no limit of its own"
#: outcome = "succeeded"
#: stdout = ["looked at"]
import os
looked = 0
for line in open("/proc/self/mountinfo"):
    left, right = line.split(" - ", 1)
    target, kind = left.split()[4], right.split()[0]
    if kind not in ("tmpfs", "ramfs", "devtmpfs", "hugetlbfs") or target == "/dev/shm":
        continue
    looked += 1
    try:
        with open(os.path.join(target, "x"), "wb") as file:
            for _ in range(64):
                file.write(bytes(1 << 20))
        print("REACHED 64 MiB on", target, kind)
    except OSError:
        pass
print("looked at", looked)
