#: about = "a child that changes a folder into a link and back, again and again, while artifacts would be read"
#: outcome = "succeeded"
#: checks = ["no_host_files"]
#: accounted = ["steady.txt"]
import os, time
os.makedirs("artifacts/real", exist_ok=True)
open("artifacts/steady.txt", "w").write("steady")
for name in ("shadow", "passwd", "machine-id"):
    open("artifacts/real/" + name, "w").write("mine")
if os.fork() == 0:
    os.setsid()
    os.symlink("/etc", "artifacts/link")
    while True:
        os.rename("artifacts/real", "artifacts/other")
        os.rename("artifacts/link", "artifacts/real")
        os.rename("artifacts/real", "artifacts/link")
        os.rename("artifacts/other", "artifacts/real")
time.sleep(0.3)
