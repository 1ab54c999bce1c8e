#: about = "makes files of a pebibyte and of 8 TiB that hold nothing, then fills the holes"
#: outcome = "limit_exceeded"
#: limit = "disk"
#: exception = "OSError"
import os
for size in (1 << 50, 8 << 40):
    try:
        with open(f"sparse-{size}", "wb") as file:
            file.truncate(size)
        print("made", size, flush=True)
    except OSError as error:
        print("refused", size, error.errno, flush=True)
file = os.open("holes", os.O_CREAT | os.O_RDWR)
for place in range(100_000):
    os.pwrite(file, b"x" * 4096, place << 24)
