#: about = "reaches for the metadata address, the gateway, names, the host's loopback and the world"
#: outcome = "succeeded"
#: stdout = ["tried", "interfaces ['lo']"]
import os, socket, struct
import autoresearch as ar
tried = 0
def refused(what, call):
    global tried
    tried += 1
    try:
        print("REACHED", what, repr(call())[:80])
    except OSError:
        pass
def connect(address, family=socket.AF_INET):
    made = socket.socket(family, socket.SOCK_STREAM)
    made.settimeout(1)
    made.connect(address)
    return "connected"
def send(address, family=socket.AF_INET):
    made = socket.socket(family, socket.SOCK_DGRAM)
    return made.sendto(b"x", address)
port = ar.params["tcp_port"]
for address in (("169.254.169.254", 80), ("127.0.0.1", port), ("172.17.0.1", 2375), ("172.17.0.1", port), ("10.0.2.2", 80), ("192.168.0.1", 80), ("1.1.1.1", 53), ("8.8.8.8", 443)):
    refused(f"connect {address}", lambda: connect(address))
for address in (("::1", port), ("fe80::1%lo", port), ("2606:4700:4700::1111", 443), ("fd00:ec2::254", 80)):
    refused(f"connect {address}", lambda: connect(address, socket.AF_INET6))
for address in (("8.8.8.8", 53), ("255.255.255.255", 67), ("224.0.0.251", 5353), ("169.254.169.254", 80)):
    refused(f"send {address}", lambda: send(address))
for name in ("example.com", "metadata.google.internal", "host.docker.internal", "pypi.org"):
    refused("name " + name, lambda: socket.getaddrinfo(name, 80))
print("interfaces", sorted(name for _, name in socket.if_nameindex()))
routes = open("/proc/net/route").read().splitlines()[1:]
if routes:
    print("REACHED routes", routes)
print("tried", tried)
