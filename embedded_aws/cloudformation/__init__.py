"""A CloudFormation engine in place of moto's.

`template` reads a template, `evaluate` resolves its functions, `graph` orders its resources, `plan` finds out what a
new template changes, `engine` carries it out, `store` holds the stacks of a region; `api/cloudformation/` answers.
"""
