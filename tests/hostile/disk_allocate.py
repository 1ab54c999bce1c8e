#: about = "allocates what it does not write"
#: outcome = "limit_exceeded"
#: limit = "disk"
#: exception = "OSError"
import os
file = os.open("big", os.O_CREAT | os.O_RDWR)
try:
    os.posix_fallocate(file, 0, 1 << 40)
    print("REACHED a terabyte")
except OSError:
    pass
size = 0
while True:
    os.posix_fallocate(file, size, 1 << 20)
    size += 1 << 20
