#: about = "a million small maps, one descriptor for each number it may have, and a very long command line"
#: outcome = "succeeded"
#: stdout = ["maps refused", "descriptors refused", "arguments refused"]
import mmap, os, subprocess
held = []
try:
    for number in range(1_000_000):
        held.append(mmap.mmap(-1, 4096, prot=mmap.PROT_READ if number % 2 else mmap.PROT_READ | mmap.PROT_WRITE))
except (OSError, MemoryError):
    print("maps refused")
del held
open_now = []
try:
    while len(open_now) < 2_000_000:
        open_now.append(os.open("/dev/null", os.O_RDONLY))
except OSError:
    print("descriptors refused")
for number in open_now:
    os.close(number)
try:
    subprocess.run(["/bin/true", "x" * (64 << 20)])
except OSError:
    print("arguments refused")
