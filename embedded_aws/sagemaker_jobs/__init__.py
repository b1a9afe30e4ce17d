"""SageMaker Processing jobs that really run: a process group each, with S3 in and out."""
