"""Jobs that really run on this machine: SageMaker Processing, Step Functions and EC2 instances.

A job is a process group of its own below the server. Its files are under the server's directory, which stands for the
machine's disk; its standard output goes to the local CloudWatch Logs; what it reads and writes goes through the local
S3. `processing` is the life of a Processing job, `api` its SageMaker calls, `states` what is changed in moto's Step
Functions interpreter, `events` the EventBridge rules that it triggers, `instances` EC2 instances that run their user
data, `metadata` their metadata service. `faults` are made on purpose, `clock` makes waiting shorter than on AWS.
"""
