#: about = "looks for the engine: its sockets as files and as abstract names, and its files"
#: outcome = "succeeded"
#: stdout = ["tried"]
import os, socket
tried = 0
paths = ["/var/run/docker.sock", "/run/docker.sock", "/run/containerd/containerd.sock", "/run/docker/containerd/containerd.sock", "/var/run/docker/metrics.sock",
         "/run/podman/podman.sock", "/run/crio/crio.sock", "/run/systemd/private", "/run/dbus/system_bus_socket", "/run/snapd.socket", "/var/run/nvidia-persistenced/socket"]
for path in paths:
    tried += 1
    if os.path.lexists(path):
        print("REACHED", path)
    try:
        socket.socket(socket.AF_UNIX).connect(path)
        print("REACHED", path)
    except OSError:
        pass
for folder, _, files in os.walk("/"):
    if folder.startswith(("/proc", "/sys")):
        continue
    for name in files:
        if name.endswith(".sock"):
            print("REACHED", os.path.join(folder, name))
for line in open("/proc/net/unix").read().splitlines()[1:]:
    tried += 1
    name = line.split()[-1]
    if name.startswith(("@", "/")):
        print("REACHED the name of a socket:", name)
print("tried", tried)
