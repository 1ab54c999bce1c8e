#: about = "takes memory until there is none"
#: outcome = "out_of_memory"
#: may_starve = true
#: flags = ["--time-limit", "20s", "--memory", "96MiB"]
#: signal = 9
#: message = ["the program", "96"]
held = []
while True:
    held.append(b"x" * (32 << 20))
