#: about = "puts a link in the place of the folder that artifacts are read from"
#: outcome = "succeeded"
#: kept = []
#: checks = ["no_host_files"]
#: left_out = { "" = "cannot be opened" }
import os, shutil
shutil.rmtree("artifacts", ignore_errors=True)
os.symlink("/etc", "artifacts")
