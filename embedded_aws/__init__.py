"""AWS on this machine, for rehearsals: moto and what it lacks of CloudFormation, SageMaker hosting and CloudWatch.

`inferentia rehearsal up --directory DIR` runs it in one process on a loopback address. Nothing here proves that
something works on AWS; it rehearses it. Every behaviour that is added to moto names the AWS page that it follows.
"""
