#: about = "fills the disk with one file"
#: outcome = "limit_exceeded"
#: limit = "disk"
#: exception = "OSError"
#: stderr = ["No space left"]
block = b"x" * (1 << 20)
with open("big", "wb") as file:
    while True:
        file.write(block)
