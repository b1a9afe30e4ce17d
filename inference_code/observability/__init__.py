"""What a request leaves behind: metrics, log lines and CloudWatch records."""
