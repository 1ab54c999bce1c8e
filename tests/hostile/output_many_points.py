#: about = "logs points one after another, past the count that is kept"
#: outcome = "succeeded"
#: worker = { "limits.default.metric_points" = "500" }
#: points_kept = 500
#: notes = ["1500 metric points were dropped"]
import autoresearch as ar
for step in range(2000):
    ar.log(step=step, loss=1.0 / (step + 1))
