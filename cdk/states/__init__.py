"""Step Functions definitions as Python data: functions that return states, free of aws_cdk.

Values that only exist at deployment (a bucket's name, a role's ARN) come in as text; tokens of the CDK are text too.
Query language JSONPath; only states and intrinsic functions that AWS and the embedded AWS both have.
"""
