"""CodeBuild: a build runs its buildspec's commands on this machine, with a stand-in for Docker."""
