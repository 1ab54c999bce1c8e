#: about = "reads what may tell of the host: environment, mounts, names, other processes"
#: outcome = "succeeded"
#: checks = ["host_hidden"]
import os, socket
for name, value in os.environ.items():
    if "SECRET" in name or "API_KEY" in name or "TOKEN" in name or "hidden-from-the-sandbox" in value:
        print("REACHED environment", name)
for pid in filter(str.isdigit, os.listdir("/proc")):
    if int(pid) not in (1, os.getpid()):
        print("REACHED process", pid)
    if int(pid) != os.getpid():
        for name in ("environ", "maps", "cwd", "exe", "root"):
            try:
                path = f"/proc/{pid}/{name}"
                print("REACHED", path, os.readlink(path) if os.path.islink(path) else open(path, "rb").read(64))
            except OSError:
                pass
print("HOSTNAME", socket.gethostname())
print("INSIDE")
for path in ("/proc/self/mountinfo", "/proc/self/cgroup", "/etc/hostname", "/etc/hosts", "/etc/resolv.conf", "/proc/1/cmdline", "/proc/1/mountinfo", "/proc/sys/kernel/domainname"):
    try:
        print(path, open(path).read())
    except OSError as error:
        print(path, error.errno)
print(dict(os.environ))
