#: about = "fills the disk with a file that has no name any more: when the program is gone, so is the file"
#: outcome = "limit_exceeded"
#: limit = "disk"
#: exception = "OSError"
import os, time
file = os.open("big", os.O_CREAT | os.O_RDWR)
os.unlink("big")
try:
    while True:
        os.write(file, b"x" * (1 << 20))
finally:
    time.sleep(5)
