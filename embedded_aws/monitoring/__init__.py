"""CloudWatch's side that moto lacks: percentiles, metric math, alarms that are evaluated, composite alarms.

`series` keeps and reads data points, `expressions` evaluates metric math, `alarms` evaluates alarms.
"""
