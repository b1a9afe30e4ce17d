"""CloudFormation's operations for clients, in place of moto's.

Source: AWS CloudFormation API Reference, https://docs.aws.amazon.com/AWSCloudFormation/latest/APIReference/Welcome.html
An operation that is not here answers that the embedded AWS does not have it.
"""

from __future__ import annotations

from .change_sets import ChangeSets
from .resources import Resources
from .stacks import Stacks


class CloudFormation(Stacks, ChangeSets, Resources):
    """One request; moto parses it and serializes the answer by botocore's model."""
