#!/bin/sh
# SageMaker starts the container with the one argument `serve`, the artifact in /opt/ml/model, and asks on 8080:
# https://docs.aws.amazon.com/sagemaker/latest/dg/your-algorithms-inference-code.html
if [ "$#" -gt 1 ] || [ "${1:-serve}" != serve ]; then
  echo "this image is started with \`serve\`, or with nothing; not with: $*" >&2
  exit 2
fi
here=$(cd "$(dirname "$0")" && pwd)
exec python3 -I "$here/verify.py" --model-dir /opt/ml/model -- \
  python3 -m inference_code.server --model-dir /opt/ml/model --host 0.0.0.0 --port "${SAGEMAKER_BIND_TO_PORT:-8080}"
