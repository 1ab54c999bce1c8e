#: about = "opens and makes devices of the machine"
#: outcome = "succeeded"
#: stdout = ["tried"]
import glob, os, stat
tried = 0
for path in ("/dev/mem", "/dev/kmem", "/dev/port", "/dev/kmsg", "/dev/sda", "/dev/vda", "/dev/nvme0n1", "/dev/loop0", "/dev/loop-control", "/dev/fuse", "/dev/kvm", "/dev/vhost-net",
             "/dev/net/tun", "/dev/uinput", "/dev/input/event0", "/dev/dri/card0", "/dev/nvidia0", "/dev/nvidiactl", "/dev/vsock", "/dev/mapper/control", "/dev/cpu/0/msr", "/dev/hpet", "/dev/rtc0"):
    tried += 1
    for flags in (os.O_RDONLY, os.O_WRONLY):
        try:
            os.open(path, flags)
            print("REACHED", path)
            break
        except OSError:
            pass
for name, kind, major, minor in (("mem", stat.S_IFCHR, 1, 1), ("kmsg", stat.S_IFCHR, 1, 11), ("loop", stat.S_IFBLK, 7, 0), ("vda", stat.S_IFBLK, 253, 0), ("sda", stat.S_IFBLK, 8, 0),
                                 ("fuse", stat.S_IFCHR, 10, 229), ("overlay whiteout", stat.S_IFCHR, 0, 0)):
    for folder in (".", "/tmp", "/dev/shm", "/dev"):
        tried += 1
        path = os.path.join(folder, "made-" + name)
        try:
            os.mknod(path, 0o666 | kind, os.makedev(major, minor))
        except OSError:
            continue
        try:
            os.open(path, os.O_RDWR)
            print("REACHED", path)
        except OSError:
            pass
allowed = {"null", "zero", "full", "random", "urandom", "tty", "console", "ptmx"}
for path in glob.glob("/dev/*"):
    if stat.S_ISBLK(os.lstat(path).st_mode) or stat.S_ISCHR(os.lstat(path).st_mode) and os.path.basename(path) not in allowed:
        print("REACHED the device", path)
print("tried", tried)
