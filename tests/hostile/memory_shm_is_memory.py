#: about = "takes memory as files in /dev/shm, in a hundred of them"
#: outcome = "out_of_memory"
#: may_starve = true
#: flags = ["--time-limit", "20s", "--memory", "96MiB", "--shm", "96MiB"]
#: signal = 9
block = b"x" * (1 << 20)
for number in range(200):
    with open(f"/dev/shm/{number}", "wb") as file:
        file.write(block)
held = b"x" * (200 << 20)
