#: about = "makes a million empty files"
#: outcome = "limit_exceeded"
#: limit = "disk"
#: exception = "OSError"
import os
os.mkdir("many")
os.chdir("many")
for number in range(1_000_000):
    os.close(os.open(str(number), os.O_CREAT | os.O_WRONLY))
raise SystemExit("a million files were made")
