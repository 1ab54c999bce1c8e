#: about = "reads a file that is larger than its memory: the cache is no out-of-memory"
#: outcome = "succeeded"
#: flags = ["--memory", "64MiB", "--disk", "256MiB"]
#: stdout = ["read 335544320"]
block = b"x" * (1 << 20)
with open("big", "wb") as file:
    for _ in range(160):
        file.write(block)
read = 0
for _ in range(2):
    with open("big", "rb") as file:
        while piece := file.read(1 << 20):
            read += len(piece)
print("read", read)
