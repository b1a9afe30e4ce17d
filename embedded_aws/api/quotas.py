"""Service Quotas and the images of AWS's registries, as far as a preflight asks for them.

Sources: https://docs.aws.amazon.com/servicequotas/2019-06-24/apireference/API_ListServiceQuotas.html,
https://docs.aws.amazon.com/AmazonECR/latest/APIReference/API_DescribeImages.html
"""

from __future__ import annotations

import hashlib
import zlib
from typing import Any

from moto.core.responses import ActionResult
from moto.ecr.responses import ECRResponse
from moto.servicequotas.responses import ServiceQuotasResponse

from endpoint_spec import platforms

from ..context import WithContext
from ..errors import AwsError

INSTANCES, VCPUS = 20.0, 256.0  # what this account begins with; on AWS often 0
_EC2 = ("Running On-Demand", "instances"), ("All", "Spot Instance Requests")
_FAMILIES = ("Standard (A, C, D, H, I, M, R, T, Z)", "Inf")


class ServiceQuotas(WithContext, ServiceQuotasResponse):
    """ListServiceQuotas; RequestServiceQuotaIncrease is granted at once, also downwards: a rehearsal of too little."""

    def list_service_quotas(self) -> ActionResult:
        """All quotas of a service on one page."""
        service = self._get_param("ServiceCode")
        return ActionResult({"Quotas": list(self._quotas(service).values())})

    def request_service_quota_increase(self) -> ActionResult:
        """The new value counts from now on."""
        service, code = self._get_param("ServiceCode"), self._get_param("QuotaCode")
        quota = self._quotas(service).get(code)
        if quota is None:
            raise AwsError("NoSuchResourceException", f"there is no quota {code} of {service}")
        self.context.quotas[self.region, service, code] = float(self._get_param("DesiredValue"))
        wanted = {"ServiceCode": service, "QuotaCode": code, "Status": "APPROVED"}
        return ActionResult({"RequestedQuota": {**wanted, "DesiredValue": self._get_param("DesiredValue")}})

    def _quotas(self, service: str) -> dict[str, dict[str, Any]]:
        if service == "sagemaker":
            names = {f"{kind} for endpoint usage": INSTANCES for kind in platforms.instance_types()}
            jobs = float(self.context.jobs.quota)
            names |= {f"{kind} for processing job usage": jobs for kind in platforms.job_instance_types("processing")}
        elif service == "ec2":
            names = {f"{before} {family} {after}": VCPUS for before, after in _EC2 for family in _FAMILIES}
        else:
            raise AwsError("NoSuchResourceException", f"the embedded AWS knows no quotas of {service!r}")
        found = {}
        for name, value in names.items():
            code = f"L-{zlib.crc32(name.encode()):08X}"
            kept = self.context.quotas.get((self.region, service, code), value)
            found[code] = {"ServiceCode": service, "QuotaCode": code, "QuotaName": name, "Value": kept}
        return found


def aws_digest(image: platforms.Image) -> str:
    """A digest for an image of AWS's registries: not the real one, which nobody has looked up."""
    return f"sha256:{hashlib.sha256(f'{image.repository}:{image.tag}'.encode()).hexdigest()}"


class Registry(ECRResponse):
    """DescribeImages also of AWS's own registries, which hold the images of endpoint_spec/data/images.yaml."""

    def describe_images(self) -> ActionResult:
        """Of this account's repositories moto answers."""
        registry, repository = self._get_param("registryId"), self._get_param("repositoryName")
        if registry in (None, self.current_account):
            return super().describe_images()
        known = platforms.registry_accounts().get(self.region) == registry
        tags = {
            image.tag: aws_digest(image)
            for image in platforms.images()
            if known and image.registry == "aws" and image.repository == repository
        }
        if not tags:
            raise AwsError("RepositoryNotFoundException", f"{repository} does not exist in the registry {registry}")
        details = []
        for asked in self._get_param("imageIds") or [{"imageTag": tag} for tag in sorted(tags)]:
            tag, digest = asked.get("imageTag"), asked.get("imageDigest")
            found = [one for one in tags if one == tag or tags[one] == digest]
            if not found:
                raise AwsError("ImageNotFoundException", f"{tag or digest} does not exist in {repository}")
            details.append({"imageTags": found, "imageDigest": tags[found[0]]})
        details = [{"registryId": registry, "repositoryName": repository, **row} for row in details]
        return ActionResult({"imageDetails": details})
