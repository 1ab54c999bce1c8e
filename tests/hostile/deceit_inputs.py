#: about = "changes what it was given, so that another would be given it"
#: outcome = "succeeded"
#: stdout = ["tried"]
import os, sys
tried = 0
for root in ("/in", "/opt/autoresearch", "/usr/lib/python3", "/usr/bin"):
    for folder, _, files in os.walk(root):
        for name in files[:20]:
            tried += 1
            path = os.path.join(folder, name)
            for what, call in (("write", lambda: os.open(path, os.O_WRONLY)), ("unlink", lambda: os.unlink(path)), ("chmod", lambda: os.chmod(path, 0o777)),
                               ("rename", lambda: os.rename(path, path + "~"))):
                try:
                    call()
                    print("REACHED", what, path)
                except OSError:
                    pass
print("tried", tried)
