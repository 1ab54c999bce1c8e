#: about = "writes to the kernel's files: settings, sysrq, core_pattern, /sys, its own maps"
#: outcome = "succeeded"
#: stdout = ["tried"]
import os, stat
tried = 0
values = {
    "/proc/sysrq-trigger": "b", "/proc/sys/kernel/core_pattern": "|/tmp/x", "/proc/sys/kernel/hostname": "owned", "/proc/sys/kernel/modprobe": "/tmp/x",
    "/proc/sys/kernel/randomize_va_space": "0", "/proc/sys/vm/overcommit_memory": "1", "/proc/sys/vm/drop_caches": "3", "/proc/sys/kernel/ns_last_pid": "1",
    "/proc/sys/net/ipv4/ip_forward": "1", "/proc/sys/fs/binfmt_misc/register": ":x:M::x::/tmp/x:", "/proc/sys/kernel/usermodehelper/bset": "0 0",
    "/proc/self/uid_map": "0 0 1", "/proc/self/setgroups": "allow", "/proc/self/oom_score_adj": "-1000", "/proc/1/oom_score_adj": "1000",
    "/proc/self/attr/current": "unconfined", "/proc/self/timens_offsets": "monotonic 1 0", "/proc/irq/default_smp_affinity": "1",
    "/proc/acpi/wakeup": "x", "/proc/mtrr": "x", "/proc/scsi/scsi": "x", "/proc/latency_stats": "0", "/proc/timer_list": "x",
    "/sys/kernel/uevent_helper": "/tmp/x", "/sys/power/state": "mem", "/sys/kernel/mm/transparent_hugepage/enabled": "never", "/sys/block/loop0/uevent": "add",
    "/sys/module/kernel/parameters/panic": "1", "/sys/kernel/debug/x": "x", "/sys/kernel/tracing/tracing_on": "1", "/sys/firmware/efi/vars": "x",
}
for path, value in values.items():
    tried += 1
    # What is masked by /dev/null takes every write.
    if os.path.exists(path) and stat.S_ISCHR(os.stat(path).st_mode):
        continue
    try:
        with open(path, "w") as file:
            file.write(value)
        print("REACHED", path)
    except OSError:
        pass
for root in ("/proc/sys", "/sys"):
    for folder, folders, files in os.walk(root):
        if folder.count("/") > 6:
            folders.clear()
        for name in files:
            path = os.path.join(folder, name)
            tried += 1
            if stat.S_ISCHR(os.lstat(path).st_mode):
                continue
            try:
                os.close(os.open(path, os.O_WRONLY | os.O_NONBLOCK))
                print("REACHED open of", path)
            except OSError:
                pass
        if tried > 20_000:
            break
for path in ("/proc/kcore", "/proc/kmsg", "/proc/keys", "/proc/sched_debug", "/sys/firmware/acpi/tables", "/sys/kernel/security/lockdown", "/proc/1/mem", "/proc/1/maps"):
    try:
        if os.path.isdir(path) and os.listdir(path) or not os.path.isdir(path) and open(path, "rb").read(16):
            print("REACHED reading of", path)
    except OSError:
        pass
print("tried", tried)
