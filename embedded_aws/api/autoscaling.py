"""Application Auto Scaling's tags, which moto does not keep.

Source: https://docs.aws.amazon.com/autoscaling/application/APIReference/API_RegisterScalableTarget.html (Tags)
"""

from __future__ import annotations

import json

from moto.applicationautoscaling.models import ApplicationAutoscalingBackend
from moto.applicationautoscaling.responses import ApplicationAutoScalingResponse
from moto.utilities.tagging_service import TaggingService

from ..context import WithContext
from ..errors import AwsError


class AutoScaling(WithContext, ApplicationAutoScalingResponse):
    """One request to Application Auto Scaling."""

    def register_scalable_target(self) -> str:
        """Register, keep the tags, and bring a variant's count between the two bounds.

        "it changes the resource's current capacity to a value that is inside of this range",
        https://docs.aws.amazon.com/autoscaling/application/APIReference/API_RegisterScalableTarget.html
        """
        answer = super().register_scalable_target()
        tags, resource = self._get_param("Tags"), self._get_param("ResourceId")
        target = self.applicationautoscaling_backend.targets[self._get_param("ScalableDimension")][resource]
        if tags:
            self.context.scaling_tags.tag_resource(target.arn, TaggingService.convert_dict_to_tags_input(tags))
        if target.service_namespace == "sagemaker":
            _, name, _, variant = resource.split("/")
            endpoint = self.context.hosted[self.region].endpoints.get(name)
            if endpoint is not None and variant in endpoint.variants:
                least, most = target.min_capacity or 0, target.max_capacity or 0  # both are given with the first call
                count = min(max(endpoint.variants[variant].count, least), most)
                endpoint.change([{"VariantName": variant, "DesiredInstanceCount": count}])
        return answer

    def deregister_scalable_target(self) -> str:
        """Deregister; the target's tags and policies go with it, and their alarms.

        Source: https://docs.aws.amazon.com/autoscaling/application/APIReference/API_DeregisterScalableTarget.html
        """
        backend, resource = self.applicationautoscaling_backend, self._get_param("ResourceId")
        dimension = self._get_param("ScalableDimension")
        target = backend.targets.get(dimension, {}).get(resource)
        answer = super().deregister_scalable_target()
        if target is not None:
            self.context.scaling_tags.delete_all_tags_for_resource(target.arn)
            for key, policy in list(backend.policies.items()):
                if (policy.resource_id, policy.scalable_dimension) == (resource, dimension):
                    policy.delete_alarms(backend.account_id, backend.region_name)
                    del backend.policies[key]
        return answer

    def put_scaling_policy(self) -> str:
        """A policy that is put again keeps its ARN, as on AWS; moto would give it a new one, and other alarms besides.

        Source: https://docs.aws.amazon.com/autoscaling/application/APIReference/API_PutScalingPolicy.html
        """
        backend = self.applicationautoscaling_backend
        before = dict(backend.policies)
        answer = json.loads(super().put_scaling_policy())
        for key, policy in backend.policies.items():
            if policy.policy_arn == answer["PolicyARN"] and key in before:
                policy.policy_arn = answer["PolicyARN"] = before[key].policy_arn
                before[key].delete_alarms(backend.account_id, backend.region_name)
        return json.dumps(answer)

    def tag_resource(self) -> str:
        """https://docs.aws.amazon.com/autoscaling/application/APIReference/API_TagResource.html"""
        tags = TaggingService.convert_dict_to_tags_input(self._get_param("Tags"))
        self.context.scaling_tags.tag_resource(self._known(), tags)
        return "{}"

    def untag_resource(self) -> str:
        """https://docs.aws.amazon.com/autoscaling/application/APIReference/API_UntagResource.html"""
        self.context.scaling_tags.untag_resource_using_names(self._known(), self._get_param("TagKeys"))
        return "{}"

    def list_tags_for_resource(self) -> str:
        """https://docs.aws.amazon.com/autoscaling/application/APIReference/API_ListTagsForResource.html"""
        return json.dumps({"Tags": self.context.scaling_tags.get_tag_dict_for_resource(self._known())})

    def _known(self) -> str:
        backend: ApplicationAutoscalingBackend = self.applicationautoscaling_backend
        arn = str(self._get_param("ResourceARN"))
        if arn not in {target.arn for targets in backend.targets.values() for target in targets.values()}:
            raise AwsError("ResourceNotFoundException", f"no scalable target has the ARN {arn}")
        return arn
