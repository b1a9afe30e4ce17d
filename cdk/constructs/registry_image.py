"""The container image in the registry of the region that a stack is deployed to."""

from __future__ import annotations

from aws_cdk import Aws, CfnMapping, Stack, Token
from constructs import Construct

from endpoint_spec import built_images, platforms
from endpoint_spec.built_images import BuiltImage


class RegistryImage(Construct):
    """A container image, and what a role needs to know to pull it.

    uri: the image's address, with its digest where it was built here, else with its tag.
    repository_arn: the one repository that has to be readable.

    The account that owns AWS's images depends on the region. A stack with an explicit region gets the literal
    account; an environment-agnostic one gets a mapping, which CloudFormation resolves (and, for a region that is not
    in it, refuses) when it creates the stack. An image of your own is in the stack's own account.
    """

    def __init__(
        self, scope: Construct, construct_id: str, *, image: platforms.Image, built: BuiltImage | None = None
    ) -> None:
        """image: a row of the platform table. built: what was built of it, of images.lock.json.

        Raises endpoint_spec.platforms.UnknownPlatform, with the reason, for an explicit region without Neuron images.
        """
        super().__init__(scope, construct_id)
        region = Stack.of(self).region
        account = self._account(image, region)
        self.uri = f"{account}.dkr.ecr.{region}.{Aws.URL_SUFFIX}/{built_images.reference(image, built)}"
        self.repository_arn = f"arn:{Aws.PARTITION}:ecr:{region}:{account}:repository/{image.repository}"

    def _account(self, image: platforms.Image, region: str) -> str:
        if not Token.is_unresolved(region):
            literal = platforms.registry_account(region, image.target)
            return Stack.of(self).account if image.registry == "own" else literal
        if image.registry == "own":
            return Stack.of(self).account
        accounts = sorted(platforms.registry_accounts(image.target).items())
        mapping = CfnMapping(
            self, "RegistryAccounts", mapping={name: {"account": account} for name, account in accounts}
        )
        mapping.override_logical_id("RegistryAccounts")
        return mapping.find_in_map(Aws.REGION, "account")
