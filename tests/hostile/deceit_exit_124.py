#: about = "ends with the number that others read as a kill"
#: outcome = "failed"
#: exit = 124
import sys
sys.exit(124)
