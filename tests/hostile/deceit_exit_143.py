#: about = "ends with the number that others read as a kill"
#: outcome = "failed"
#: exit = 143
import sys
sys.exit(143)
