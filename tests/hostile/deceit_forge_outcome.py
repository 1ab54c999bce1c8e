#: about = "tries everything known to have another outcome than its own: PID 1's reports, descriptors, memory, limits, signals"
#: outcome = "failed"
#: exit = 3
#: metrics = {}
#: notes = ["were no metrics"]
import ctypes, glob, os, resource, signal, sys
report = b'{"report":"ended","exit":0,"elapsed_ns":1}\n{"event":"ended","exit_code":0}\n{"exit":0}\n{"killed":true}\n'

def reached(what):
    print("REACHED", what, flush=True)

for descriptor in (1, 2):
    os.write(descriptor, report)
try:
    os.write(3, report)
except OSError:
    pass
for path in ["/proc/1/fd/%d" % n for n in range(16)] + ["/proc/1/mem", "/proc/1/oom_score_adj", "/proc/1/attr/current"]:
    for flags in (os.O_WRONLY, os.O_RDWR, os.O_WRONLY | os.O_APPEND):
        try:
            os.write(os.open(path, flags), report)
            reached("wrote " + path)
        except OSError:
            pass
for path in ("/proc/1/mem", "/proc/1/environ", "/proc/1/maps"):
    try:
        open(path, "rb").read(64)
        reached("read " + path)
    except OSError:
        pass
try:
    os.listdir("/proc/1/fd")
    reached("listed /proc/1/fd")
except OSError:
    pass
for folder in ("/logs", "/run", "/volume"):
    for root, _, files in os.walk(folder):
        for name in files + ["report", "outcome"]:
            path = os.path.join(root, name)
            for attempt in (lambda: os.truncate(path, 0), lambda: os.unlink(path), lambda: os.rename(path, path + "x"),
                            lambda: open(path, "w").write("x"), lambda: os.chmod(path, 0o777)):
                try:
                    attempt()
                    reached("changed " + path)
                except OSError:
                    pass
for descriptor in (1, 2, 3):
    try:
        os.ftruncate(descriptor, 0)
        reached("ftruncate %d" % descriptor)
    except OSError:
        pass
    path = "/proc/self/fd/%d" % descriptor
    try:
        os.close(os.open(path, os.O_WRONLY | os.O_TRUNC))
        reached("truncated through " + path)
    except OSError:
        pass
for number in range(1, 65):
    try:
        os.kill(1, number)
        reached("signal %d to PID 1" % number)
    except OSError:
        pass
libc = ctypes.CDLL(None, use_errno=True)
class sigval(ctypes.Structure):
    _fields_ = [("value", ctypes.c_void_p)]
for number in (10, 12, 34, 40):
    if libc.sigqueue(1, number, sigval(0)) == 0:
        reached("sigqueue %d to PID 1" % number)
for name, call in {
    "prlimit": lambda: resource.prlimit(1, resource.RLIMIT_CPU, (1, 1)),
    "prlimit read": lambda: resource.prlimit(1, resource.RLIMIT_AS),
    "setpriority": lambda: os.setpriority(os.PRIO_PROCESS, 1, 19),
    "sched_setscheduler": lambda: os.sched_setscheduler(1, os.SCHED_IDLE, os.sched_param(0)),
    "sched_setaffinity": lambda: os.sched_setaffinity(1, {0}),
    "setuid": lambda: os.setuid(0),
    "setresuid": lambda: os.setresuid(0, 0, 0),
    "setgid": lambda: os.setgid(0),
    "setgroups": lambda: os.setgroups([0]),
    "pidfd": lambda: signal.pidfd_send_signal(os.pidfd_open(1), signal.SIGTERM),
}.items():
    try:
        call()
        reached(name)
    except OSError:
        pass
if libc.ptrace(16, 1, 0, 0) == 0:
    reached("ptrace of PID 1")
# A child that outlives the program and goes on forging.
if os.fork() == 0:
    os.setsid()
    import time
    while True:
        os.write(1, report)
        time.sleep(0.05)
os._exit(3)
