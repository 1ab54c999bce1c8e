#: about = "takes memory until there is none"
#: outcome = "out_of_memory"
#: flags = ["--memory", "96MiB"]
#: signal = 9
#: message = ["the program", "96"]
held = []
while True:
    held.append(b"x" * (1 << 20))
