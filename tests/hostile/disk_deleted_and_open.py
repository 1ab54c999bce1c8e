#: about = "fills the disk with a file that has no name any more"
#: outcome = "limit_exceeded"
#: limit = "disk"
#: exception = "OSError"
import os
file = os.open("big", os.O_CREAT | os.O_RDWR)
os.unlink("big")
while True:
    os.write(file, b"x" * (1 << 20))
