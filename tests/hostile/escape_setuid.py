#: about = "becomes another user: by call, by the image's setuid programs, by one that it plants"
#: outcome = "succeeded"
#: stdout = ["uid 5", "tried"]
import os, shutil, stat, subprocess
print("uid", os.getuid())
status = dict(line.split(":", 1) for line in open("/proc/self/status").read().splitlines() if ":" in line)
for name in ("CapEff", "CapPrm", "CapInh", "CapAmb"):
    if int(status[name], 16):
        print("REACHED", name, status[name])
if status["NoNewPrivs"].strip() != "1" or status["Seccomp"].strip() != "2":
    print("REACHED no walls", status["NoNewPrivs"], status["Seccomp"])
if len(set(status["Uid"].split())) != 1 or int(status["Uid"].split()[0]) < 50000 or status["Groups"].split():
    print("REACHED ids", status["Uid"], status["Groups"])
tried = 0
for name, call in {
    "setuid": lambda: os.setuid(0), "setresuid": lambda: os.setresuid(0, 0, 0), "setgid": lambda: os.setgid(0), "setgroups": lambda: os.setgroups([0]),
    "setreuid": lambda: os.setreuid(-1, 0), "another slot": lambda: os.setuid(os.getuid() + 1), "nobody": lambda: os.setresuid(65534, 65534, 65534),
}.items():
    tried += 1
    try:
        call()
        print("REACHED", name)
    except OSError:
        pass
found = []
for folder, folders, files in os.walk("/"):
    if folder.startswith(("/proc", "/sys")):
        folders.clear()
        continue
    for name in files:
        path = os.path.join(folder, name)
        try:
            mode = os.lstat(path)
        except OSError:
            continue
        if stat.S_ISREG(mode.st_mode) and mode.st_mode & (stat.S_ISUID | stat.S_ISGID) and mode.st_uid != os.getuid():
            found.append(path)
for path in found:
    tried += 1
    ran = subprocess.run([path, "-c", "id -u"], stdin=subprocess.DEVNULL, capture_output=True, timeout=10)
    if b"uid=0" in ran.stdout or ran.stdout.strip() == b"0":
        print("REACHED root through", path)
shutil.copy("/usr/bin/id", "planted")
os.chmod("planted", 0o6755)
ran = subprocess.run(["./planted", "-u"], capture_output=True)
if ran.stdout.strip() not in (b"", str(os.getuid()).encode()):
    print("REACHED", ran.stdout)
print("tried", tried)
