#: about = "writes to the programs that started it, through /proc, as escapes from container runtimes did"
#: outcome = "succeeded"
#: stdout = ["tried"]
import glob, os
tried = 0
for path in glob.glob("/proc/[0-9]*/exe") + ["/proc/self/exe", "/proc/1/exe", "/sandbox-init", "/usr/bin/python3", "/opt/autoresearch/runner.py"] + glob.glob("/proc/[0-9]*/map_files/*"):
    for flags in (os.O_WRONLY, os.O_RDWR | os.O_TRUNC, os.O_WRONLY | os.O_APPEND):
        tried += 1
        try:
            os.close(os.open(path, flags))
            print("REACHED", path)
        except OSError:
            pass
for name in ("/proc/self/cwd", "/proc/self/root", "/proc/1/cwd", "/proc/1/root"):
    tried += 1
    try:
        up = os.path.realpath(name + "/../../../../../../..")
        if os.path.exists(up + "/proc/1/exe") and os.listdir(up) != os.listdir("/"):
            print("REACHED another root through", name)
    except OSError:
        pass
print("tried", tried)
