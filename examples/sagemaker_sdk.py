"""Ask a deployed endpoint through the SageMaker Python SDK: version 3's resources, or version 2's Predictor.

Nothing of this project needs the SDK: the endpoint is an ordinary one, and boto3 is enough (docs/invoking.md). This
shows that programs which use the SDK find it as they expect. Needs what requirements-sagemaker.txt names, in an
environment of its own; credentials and region as boto3 finds them, or the embedded AWS:

    eval "$(inferentia rehearsal env --directory build/up/aws)"
    build/sagemaker/bin/python examples/sagemaker_sdk.py depth examples/photographs/coffee.jpg
"""

from __future__ import annotations

import argparse
import importlib.metadata
import io
import sys
from pathlib import Path

import boto3
import numpy as np
from botocore.exceptions import ClientError

PICTURE, ARRAY = "image/jpeg", "application/x-npy"


def with_version_3(name: str, picture: bytes) -> np.ndarray:
    """The answer as float32, H x W, through sagemaker.core.resources."""
    from sagemaker.core.resources import Endpoint, EndpointConfig  # noqa: PLC0415  (version 2 has no such module)

    session = boto3.Session()
    endpoint = Endpoint.get(name, session=session, region=session.region_name)
    config = EndpointConfig.get(endpoint.endpoint_config_name, session=session, region=session.region_name)
    variant = config.production_variants[0]
    print(f"{endpoint.endpoint_arn} is {endpoint.endpoint_status}: {variant.variant_name} on {variant.instance_type}")
    answer = endpoint.invoke(picture, content_type=PICTURE, accept=ARRAY, session=session, region=session.region_name)
    return np.load(io.BytesIO(answer.body.read()), allow_pickle=False)


def with_version_2(name: str, picture: bytes) -> np.ndarray:
    """The answer as float32, H x W, through Predictor with a serializer and a deserializer."""
    from sagemaker import Session  # noqa: PLC0415  (version 3 has no such names)
    from sagemaker.deserializers import NumpyDeserializer  # noqa: PLC0415
    from sagemaker.predictor import Predictor  # noqa: PLC0415
    from sagemaker.serializers import DataSerializer  # noqa: PLC0415

    session = Session()
    predictor = Predictor(
        name,
        sagemaker_session=session,
        serializer=DataSerializer(content_type=PICTURE),
        deserializer=NumpyDeserializer(accept=ARRAY, allow_pickle=False),  # its default would run code of the answer
    )
    status = session.sagemaker_client.describe_endpoint(EndpointName=name)["EndpointStatus"]
    print(f"endpoint {name} is {status}")
    answer: np.ndarray = predictor.predict(picture)
    return answer


def main() -> int:
    """0 answered, 1 the endpoint refused, 2 wrong use."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("endpoint")
    parser.add_argument("picture", type=Path)
    options = parser.parse_args()
    if not options.picture.is_file():
        parser.error(f"there is no file {options.picture}")
    version = importlib.metadata.version("sagemaker")
    ask = with_version_2 if version.startswith("2.") else with_version_3
    try:
        depth = ask(options.endpoint, options.picture.read_bytes())
    except ClientError as error:
        print(f"failed: {error}", file=sys.stderr)
        return 1
    low, high = float(depth.min()), float(depth.max())
    print(f"sagemaker {version}: {depth.dtype} {depth.shape}, from {low:.4f} to {high:.4f}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
