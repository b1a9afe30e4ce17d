"""Stacks only compose constructs: nothing here sets a property of an AWS resource."""
