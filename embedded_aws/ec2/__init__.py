"""EC2 instances that run their user data in a process group, with a metadata service each."""
