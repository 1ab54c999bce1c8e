#: about = "never ends"
#: outcome = "timed_out"
#: flags = ["--time-limit", "2s"]
#: message = ["2s"]
#: seconds = 12
while True:
    pass
