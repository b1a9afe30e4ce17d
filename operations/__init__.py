"""Everything that talks to an AWS account, the real one or the embedded one."""
