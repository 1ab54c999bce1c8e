#: about = "fills /dev/shm to its limit"
#: outcome = "limit_exceeded"
#: limit = "shm"
#: exception = "OSError"
block = bytes(1 << 20)
with open("/dev/shm/all", "wb") as file:
    for _ in range(64):
        file.write(block)
        file.flush()
raise SystemExit("shared memory has no limit")
