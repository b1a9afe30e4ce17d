"""SageMaker real-time hosting on this machine: one worker process a variant, run from the artifact's own code.

Every artifact runs with the native server (`python -m inference_code.server`), whatever server its image would start.
A DeploymentConfig (canary, linear, rollback alarms) is kept and shown, not carried out: traffic always moves at once.
InitialInstanceCount is kept and shown; one worker process serves the variant.

`artifact` fetches and unpacks, `worker` runs the process, `endpoint` is the life of an endpoint, `hosted` keeps those
of a server, `runtime` answers InvokeEndpoint and `api/sagemaker/` the other calls.
"""
