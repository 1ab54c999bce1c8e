#: about = "ends with the number that others read as a kill"
#: outcome = "failed"
#: exit = 159
import sys
sys.exit(159)
