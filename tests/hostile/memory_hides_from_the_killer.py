#: about = "asks the kernel to kill another one first, then takes all memory"
#: outcome = "out_of_memory"
#: may_starve = true
#: flags = ["--time-limit", "20s", "--memory", "96MiB"]
#: signal = 9
import os
for path, value in (("/proc/self/oom_score_adj", "-1000"), ("/proc/self/oom_adj", "-17"), ("/proc/1/oom_score_adj", "1000")):
    try:
        os.write(os.open(path, os.O_WRONLY), value.encode())
        print("REACHED", path, flush=True)
    except OSError:
        pass
held = []
while True:
    held.append(b"x" * (32 << 20))
