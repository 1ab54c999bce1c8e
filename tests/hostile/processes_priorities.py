#: about = "asks for more of the machine: priority, real time, other CPUs' sets, larger limits"
#: outcome = "succeeded"
#: stdout = ["asked"]
import os, resource
def refused(what, call):
    try:
        call()
        print("REACHED", what)
    except (OSError, ValueError):
        pass
refused("nice", lambda: os.setpriority(os.PRIO_PROCESS, 0, -5))
refused("real time", lambda: os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(1)))
refused("round robin", lambda: os.sched_setscheduler(0, os.SCHED_RR, os.sched_param(1)))
for name in ("NOFILE", "CORE"):
    kind = getattr(resource, "RLIMIT_" + name)
    hard = resource.getrlimit(kind)[1]
    if hard == resource.RLIM_INFINITY:
        print("REACHED no limit on", name)
    else:
        refused("a larger " + name, lambda: resource.setrlimit(kind, (hard + 1, hard + 1)))
if resource.getrlimit(resource.RLIMIT_CORE)[1] != 0:
    print("REACHED core dumps")
print("asked")
