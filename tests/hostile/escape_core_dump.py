#: about = "dies with a large image, so that the host writes it down or runs its handler"
#: outcome = "failed"
#: signal = 6
#: kept = []
import os, resource
held = b"x" * (64 << 20)
for size in (resource.RLIM_INFINITY, 1 << 30):
    try:
        resource.setrlimit(resource.RLIMIT_CORE, (size, size))
        print("REACHED a limit for core dumps", flush=True)
    except (OSError, ValueError):
        pass
os.makedirs("artifacts", exist_ok=True)
os.chdir("artifacts")
os.abort()
