"""Everything that can be wrong in a spec is one clear message: file, line, key, value, why and the way out."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from endpoint_spec import SpecErrors, load, load_all
from tests.endpoint_spec.projects import Loader

MODEL = 'model: {family: depth_anything_v2, variant: vits, weights: "random:0"}\n'
GOOD = "name: depth\n" + MODEL
OWN = "name: depth\nmodel:\n"

# id: (text, key, line, value as shown, words of the reason, words of the remedy)
Case = tuple[str, str, int, str, str, str]
# fmt: off
CASES: dict[str, Case] = {
    "name missing": (MODEL, "name", 1, "", "is missing", "Write name:"),
    "name of another file": ("name: deep\n" + MODEL, "name", 1, "deep", "not the name of the file", "name: depth"),
    "name too long": (f"name: {'a' * 64}\n" + MODEL, "name", 1, "aaaa", "64 characters", "63"),
    "name with underscore": ("name: my_depth\n" + MODEL, "name", 1, "my_depth", "not a name", "hyphens"),
    "name with a last hyphen": ("name: depth-\n" + MODEL, "name", 1, "depth-", "not a name", "ending with"),
    "name a number": ("name: 12\n" + MODEL, "name", 1, "12", "is not text", "quote it"),
    "name empty": ("name:\n" + MODEL, "name", 1, "null", "is not text", "Write a name"),
    "name quoted empty": ("name: \"\"\n" + MODEL, "name", 1, "\"\"", "not a name", "letters"),
    "model missing": ("name: depth\n", "model", 1, "", "is missing", "Write model:"),
    "model a string": ("name: depth\nmodel: vits\n", "model", 2, "vits", "not a mapping", "Write its keys"),
    "model without value": (OWN, "model", 2, "null", "has no value", "Write one"),
    "family and entry": (
        OWN + "  family: depth_anything_v2\n  entry: models/invoices.py:build\n  weights: \"random:0\"\n",
        "model.entry", 4, "models/invoices.py:build", "beside the family depth_anything_v2", "Keep family",
    ),
    "neither family nor entry": (
        OWN + "  weights: \"random:0\"\n",
        "model", 2, "", "neither family nor entry", "Write family",
    ),
    "neither weights nor graph": (
        OWN + "  entry: models/invoices.py:build\n",
        "model.weights", 2, "", "is missing", "Say where the weights come from",
    ),
    "a graph that is no file": (
        OWN + "  graph: models\n",
        "model.graph", 3, "models", "is not a file", "Name a file.",
    ),
    "a graph with weights": (
        OWN + "  graph: models/layers.py\n  weights: \"random:0\"\n",
        "model.weights", 4, "random:0", "has its weights", "Leave it out.",
    ),
    "a graph that is a number": (OWN + "  graph: 5\n", "model.graph", 3, "5", "is not text", "Write text"),
    "variant without family": (
        OWN + "  entry: models/invoices.py:build\n  variant: vits\n  weights: \"random:0\"\n",
        "model.variant", 4, "vits", "without a family", "model.options",
    ),
    "unknown family": (
        OWN + "  family: depth_anything_v3\n  weights: \"random:0\"\n",
        "model.family", 3, "depth_anything_v3", "is not a model family", "Did you mean depth_anything_v2?",
    ),
    "family a list": (
        OWN + "  family: [a]\n  weights: \"random:0\"\n",
        "model.family", 3, "[\"a\"]", "is not text", "Write text",
    ),
    "entry without function": (
        OWN + "  entry: models/invoices.py\n  weights: \"random:0\"\n",
        "model.entry", 3, "models/invoices.py", "not a Python file and a function", "path.py:function",
    ),
    "entry not there": (
        OWN + "  entry: models/nothing.py:build\n  weights: \"random:0\"\n",
        "model.entry", 3, "models/nothing.py:build", "does not exist", "Put the file at models/nothing.py",
    ),
    "entry outside": (
        OWN + "  entry: ../outside.py:build\n  weights: \"random:0\"\n",
        "model.entry", 3, "../outside.py:build", "leads out of the project", "inside the project root",
    ),
    "entry absolute": (
        OWN + "  entry: /usr/model.py:build\n  weights: \"random:0\"\n",
        "model.entry", 3, "/usr/model.py:build", "leads out of the project", "relative",
    ),
    "entry a folder": (
        OWN + "  entry: folder.py:build\n  weights: \"random:0\"\n",
        "model.entry", 3, "folder.py:build", "is not a file", "Name a file",
    ),
    "entry's function missing": (
        OWN + "  entry: models/invoices.py:make\n  weights: \"random:0\"\n",
        "model.entry", 3, "models/invoices.py:make", "the function make", "defines build, layers",
    ),
    "entry not Python": (
        OWN + "  entry: models/broken.py:build\n  weights: \"random:0\"\n",
        "model.entry", 3, "models/broken.py:build", "not valid Python (line 1", "Correct models/broken.py",
    ),
    "options a list": (
        OWN + "  family: depth_anything_v2\n  weights: \"random:0\"\n  options: [1]\n",
        "model.options", 5, "[1]", "not a mapping", "{key: value}",
    ),
    "weights missing": (
        OWN + "  family: depth_anything_v2\n",
        "model.weights", 2, "", "is missing", "Say where the weights come from",
    ),
    "weights of an unknown kind": (
        OWN + "  family: depth_anything_v2\n  weights: ftp://x/y.pth\n",
        "model.weights", 4, "ftp://x/y.pth", "not a source of weights", "{file: ftp://x/y.pth}",
    ),
    "weights a bare word": (
        OWN + "  family: depth_anything_v2\n  weights: trained\n",
        "model.weights", 4, "trained", "not a source of weights", "random:0",
    ),
    "weights a bare path": (
        OWN + "  family: depth_anything_v2\n  weights: weights/invoices.safetensors\n",
        "model.weights", 4, "weights/invoices.safetensors", "not a source", "{file: weights/invoices.safetensors}",
    ),
    "seed not a number": (
        OWN + "  family: depth_anything_v2\n  weights: \"random:x\"\n",
        "model.weights", 4, "random:x", "no seed", "random:0",
    ),
    "seed negative": (
        OWN + "  family: depth_anything_v2\n  weights: \"random:-1\"\n",
        "model.weights", 4, "random:-1", "no seed", "random:0",
    ),
    "hub without org": (
        OWN + "  family: depth_anything_v2\n  weights: \"hub:depth\"\n",
        "model.weights", 4, "hub:depth", "not a model of the hub", "hub:org/name",
    ),
    "hub with an empty revision": (
        OWN + "  family: depth_anything_v2\n  weights: \"hub:a/b@\"\n",
        "model.weights", 4, "hub:a/b@", "revision", "after the @",
    ),
    "s3 without key": (
        OWN + "  family: depth_anything_v2\n  weights: s3://bucket\n",
        "model.weights", 4, "s3://bucket", "not an S3 address", "s3://bucket/key",
    ),
    "s3 with a bucket in capitals": (
        OWN + "  family: depth_anything_v2\n  weights: s3://Bucket/a.pth\n",
        "model.weights", 4, "s3://Bucket/a.pth", "not an S3 address", "s3://bucket/key",
    ),
    "sha256 too short": (
        OWN + "  family: depth_anything_v2\n  weights: {file: weights/invoices.safetensors, sha256: 3f7c}\n",
        "model.weights", 4, "3f7c", "64 hexadecimal digits", "sha256sum",
    ),
    "file and s3": (
        OWN + "  family: depth_anything_v2\n  weights: {file: a.pth, s3: s3://bucket/a.pth}\n",
        "model.weights", 4, "a.pth", "both file and s3", "exactly one",
    ),
    "weights with an unknown key": (
        OWN + "  family: depth_anything_v2\n  weights: {path: a.pth}\n",
        "model.weights", 4, "a.pth", "unknown key path", "file or s3",
    ),
    "weights with an empty prefix": (
        OWN + "  family: depth_anything_v2\n  weights: {file: weights/invoices.safetensors, prefix: \"\"}\n",
        "model.weights", 4, "", "a prefix that is not text", "leave it out",
    ),
    "weights with a license of two lines": (
        OWN + "  family: depth_anything_v2\n  weights: {file: weights/invoices.safetensors, license: \"a\\nb\"}\n",
        "model.weights", 4, "", "a license that is no text of 1 to 100 characters", "SPDX",
    ),
    "weights with a license of a page": (
        OWN + "  family: depth_anything_v2\n  weights: {file: a.safetensors, license: " + "a" * 101 + "}\n",
        "model.weights", 4, "", "a license that is no text of 1 to 100 characters", "SPDX",
    ),
    "weights with a key that is a number": (
        OWN + "  family: depth_anything_v2\n  weights: {file: weights/invoices.safetensors, key: 3}\n",
        "model.weights", 4, "", "a key that is not text", "leave it out",
    ),
    "weights an index on S3": (
        OWN + "  family: depth_anything_v2\n  weights: s3://bucket/model.safetensors.index.json\n",
        "model.weights", 4, "index.json", "index of several files", "{file: ...}",
    ),
    "weights an index without its files": (
        OWN + "  family: depth_anything_v2\n  weights: {file: weights/a.safetensors.index.json}\n",
        "model.weights", 4, "a.safetensors.index.json", "names a-1.safetensors, which is not there", "beside the index",
    ),
    "weights an index that leads out": (
        OWN + "  family: depth_anything_v2\n  weights: {file: weights/out.index.json}\n",
        "model.weights", 4, "out.index.json", "names '../a', which is no file beside it", "again",
    ),
    "weights an index that is none": (
        OWN + "  family: depth_anything_v2\n  weights: {file: weights/no.index.json}\n",
        "model.weights", 4, "no.index.json", "no weight_map", "again",
    ),
    "an empty tag": (
        GOOD + "tags: {team: \"\"}\n", "tags", 3, "team", "has no value for team", "leave it out",
    ),
    "a tag that an instance cannot carry": (
        GOOD + "job: {where: ec2}\ntags: {cost centre: x}\n",
        "tags", 4, "cost centre", "an EC2 instance which reads its own tags cannot carry", "job.where: processing",
    ),
    "weights a number": (
        OWN + "  family: depth_anything_v2\n  weights: 0\n",
        "model.weights", 4, "0", "not a source of weights", "random:0",
    ),
    "weights file not there": (
        OWN + "  family: depth_anything_v2\n  weights: {file: weights/none.pth}\n",
        "model.weights", 4, "weights/none.pth", "does not exist", "Put the file at weights/none.pth",
    ),
    "weights file outside": (
        OWN + "  family: depth_anything_v2\n  weights: {file: ../../secret.pth}\n",
        "model.weights", 4, "../../secret.pth", "leads out of the project", "inside the project root",
    ),
    "weights file of another kind": (
        OWN + "  family: depth_anything_v2\n  weights: {file: weights/a.zip}\n",
        "model.weights", 4, "weights/a.zip", "not a weights file", ".safetensors",
    ),
    "unknown section": (GOOD + "scaling: {min: 1}\n", "scaling", 3, "", "not a known key", "Did you mean scale?"),
    "unknown key": (
        GOOD + "serve:\n  instance: ml.inf1.xlarge\n",
        "serve.instance", 4, "", "not a known key", "Did you mean instance_type?",
    ),
    "key of another section": (
        GOOD + "scale:\n  server: native\n",
        "scale.server", 4, "", "not a known key", "under serve",
    ),
    "key of no section": (
        GOOD + "rollout:\n  zzz: 1\n",
        "rollout.zzz", 4, "", "not a known key", "The keys here are strategy",
    ),
    "unknown key, deep": (
        GOOD + "compile:\n  accept:\n    min_suported: 100%\n",
        "compile.accept.min_suported", 5, "", "not a known key", "Did you mean min_supported?",
    ),
    "unknown target": (
        GOOD + "compile: {target: inf3}\n",
        "compile.target", 3, "inf3", "not possible here", "Write one of inf1, inf2",
    ),
    "a chip for the target cpu": (
        GOOD + "compile: {target: cpu}\nserve: {instance_type: ml.inf1.xlarge}\n",
        "serve.instance_type", 4, "ml.inf1.xlarge", "an instance of inf1, but compile.target is cpu", "ml.c7i.large",
    ),
    "a CPU for a chip's target": (
        GOOD + "serve: {instance_type: ml.c7i.large}\n",
        "serve.instance_type", 3, "ml.c7i.large", "an instance of cpu, but compile.target is inf1", "target: cpu",
    ),
    "torchserve on the CPU": (
        GOOD + "compile: {target: cpu}\nserve: {server: torchserve}\n",
        "serve.server", 4, "torchserve", "for a chip or its images", "Leave it out",
    ),
    "an SDK for the CPU": (
        GOOD + "compile: {target: cpu, sdk: 2.20.2}\n",
        "compile.sdk", 3, "2.20.2", "for a chip or its images", "Leave it out",
    ),
    "casts of the CPU": (
        GOOD + "compile: {target: cpu, fast_math: none}\n",
        "compile.fast_math", 3, "none", "for a chip or its images", "Leave it out",
    ),
    "options of a chip for the CPU": (
        GOOD + "compile: {target: cpu, inf2: {arguments: [-O2]}}\n",
        "compile.inf2", 3, "", "is for inf2, but compile.target is cpu", "Remove it",
    ),
    "a monitor of chips on the CPU": (
        GOOD + "compile: {target: cpu}\nserve: {neuron_monitor: true}\n",
        "serve.neuron_monitor", 4, "true", "for a chip or its images", "Leave it out",
    ),
    "a compile job for the CPU": (
        GOOD + "compile: {target: cpu}\njob: {where: processing}\n",
        "job", 4, "", "for a chip or its images", "Leave it out",
    ),
    "buckets not a list": (
        GOOD + "compile: {buckets: {image: [1, 2]}}\n",
        "compile.buckets", 3, "image", "not a list of buckets", "[{image:",
    ),
    "buckets empty": (
        GOOD + "compile: {buckets: []}\n",
        "compile.buckets", 3, "[]", "not a list of buckets", "at least one",
    ),
    "bucket not a mapping": (
        GOOD + "compile:\n  buckets:\n    - {image: [14, 14]}\n    - 518\n",
        "compile.buckets[1]", 6, "518", "not a bucket", "{tokens: 128}",
    ),
    "image of one side": (
        GOOD + "compile: {buckets: [{image: [518]}]}\n",
        "compile.buckets[0]", 3, "[518]", "[height, width]", "[518, 518]",
    ),
    "tokens a list": (
        GOOD + "compile: {buckets: [{tokens: [1, 2]}]}\n",
        "compile.buckets[0]", 3, "[1, 2]", "not one number", "{tokens: 128}",
    ),
    "size zero": (
        GOOD + "compile: {buckets: [{image: [0, 5]}]}\n",
        "compile.buckets[0]", 3, "[0, 5]", "impossible size", "from 1",
    ),
    "size with a fraction": (
        GOOD + "compile: {buckets: [{tokens: 1.5}]}\n",
        "compile.buckets[0]", 3, "1.5", "impossible size", "whole",
    ),
    "dimension in capitals": (
        GOOD + "compile: {buckets: [{Image: [1, 2]}]}\n",
        "compile.buckets[0]", 3, "Image", "impossible dimension", "lower-case",
    ),
    "unknown dimension": (
        GOOD + "compile: {buckets: [{imge: [1, 2]}]}\n",
        "compile.buckets[0]", 3, "imge", "unknown dimension imge", "Did you mean image?",
    ),
    "bucket twice": (
        GOOD + "compile: {buckets: [{tokens: 8}, {tokens: 8}]}\n",
        "compile.buckets", 3, "tokens", "{'tokens': 8} twice", "Keep one",
    ),
    "batch size zero": (
        GOOD + "compile: {batch_sizes: [1, 0]}\n",
        "compile.batch_sizes[1]", 3, "0", "too small", "1 or more",
    ),
    "batch size text": (
        GOOD + "compile: {batch_sizes: [\"4\"]}\n",
        "compile.batch_sizes[0]", 3, "4", "not a whole number", "Write a whole number",
    ),
    "batch sizes not a list": (
        GOOD + "compile: {batch_sizes: 4}\n",
        "compile.batch_sizes", 3, "4", "not a list of batch sizes", "[1, 4]",
    ),
    "batch size twice": (
        GOOD + "compile: {batch_sizes: [4, 4]}\n",
        "compile.batch_sizes", 3, "4", "names 4 twice", "Keep one",
    ),
    "pipeline larger than the instance": (
        GOOD + "compile:\n  pipeline_cores: 8\nserve: {instance_type: ml.inf1.2xlarge}\n",
        "compile.pipeline_cores", 4, "8", "more than the 4 cores of ml.inf1.2xlarge", "larger instance_type",
    ),
    "pipeline on Inf2": (
        GOOD + "compile: {target: inf2, pipeline_cores: 2}\n",
        "compile.pipeline_cores", 3, "2", "no pipeline mode", "Write 1",
    ),
    "pipeline that does not divide": (
        GOOD + "compile: {pipeline_cores: 3}\n",
        "serve.cores_per_worker", 1, "3", "does not divide the 4 cores", "pipeline_cores that divides 4",
    ),
    "pipeline with a fraction": (
        GOOD + "compile: {pipeline_cores: 1.5}\n",
        "compile.pipeline_cores", 3, "1.5", "not a whole number", "whole number",
    ),
    "pipeline true": (
        GOOD + "compile: {pipeline_cores: true}\n",
        "compile.pipeline_cores", 3, "true", "not a whole number", "whole number",
    ),
    "fast_math unknown": (
        GOOD + "compile: {fast_math: fp16}\n",
        "compile.fast_math", 3, "fp16", "not known to the inf1 compiler", "fp32-cast-matmult",
    ),
    "fast_math misspelt": (
        GOOD + "compile: {fast_math: fp32-cast-matmul}\n",
        "compile.fast_math", 3, "fp32-cast-matmul", "not known", "Did you mean fp32-cast-matmult?",
    ),
    "fast_math twice": (
        GOOD + "compile: {fast_math: fp32-cast-all fp32-cast-matmult}\n",
        "compile.fast_math", 3, "fp32-cast-all fp32-cast-matmult", "exclude each other", "Keep one",
    ),
    "fast_math of the other chip": (
        GOOD + "compile: {target: inf2, fast_math: fast-relayout}\n",
        "compile.fast_math", 3, "fast-relayout", "not known to the inf2 compiler", "fp32-cast-all",
    ),
    "fast_math empty": (
        GOOD + "compile: {fast_math: \"\"}\n",
        "compile.fast_math", 3, "\"\"", "not known", "Write one of all",
    ),
    "timeout without unit": (GOOD + "compile: {timeout: 45}\n", "compile.timeout", 3, "45", "has no unit", "45min"),
    "timeout in m": (GOOD + "compile: {timeout: 45m}\n", "compile.timeout", 3, "45m", "unknown unit m", "min or ms"),
    "timeout zero": (GOOD + "compile: {timeout: 0s}\n", "compile.timeout", 3, "0s", "no time at all", "above zero"),
    "share without percent": (
        GOOD + "compile: {accept: {min_supported: 0.9}}\n",
        "compile.accept.min_supported", 3, "0.9", "has no unit", "90%",
    ),
    "share above all": (
        GOOD + "compile: {accept: {min_supported: 101%}}\n",
        "compile.accept.min_supported", 3, "101%", "more than 100%", "0% to 100%",
    ),
    "tolerance zero": (
        GOOD + "compile: {accept: {lowering_tolerance: 0}}\n",
        "compile.accept.lowering_tolerance", 3, "0", "too small", "above 0",
    ),
    "tolerance text": (
        GOOD + "compile: {accept: {lowering_tolerance: \"1e-5\"}}\n",
        "compile.accept.lowering_tolerance", 3, "1e-5", "not a number", "without quotes",
    ),
    "tolerance of an unknown metric": (
        GOOD + "compile: {accept: {device_tolerance: {cosin: 0.9}}}\n",
        "compile.accept.device_tolerance.cosin", 3, "cosin", "not possible here", "Did you mean cosine?",
    ),
    "cosine above one": (
        GOOD + "compile: {accept: {device_tolerance: {cosine: 1.5}}}\n",
        "compile.accept.device_tolerance.cosine", 3, "1.5", "above 1", "0.999",
    ),
    "subgraphs zero": (
        GOOD + "compile: {accept: {max_subgraphs: 0}}\n",
        "compile.accept.max_subgraphs", 3, "0", "too small", "1 or more",
    ),
    "handler not there": (
        GOOD + "serve: {handler: models/none.py}\n",
        "serve.handler", 3, "models/none.py", "does not exist", "Put the file",
    ),
    "handler not Python": (
        GOOD + "serve: {handler: models/x.txt}\n",
        "serve.handler", 3, "models/x.txt", "not a Python file", ".py",
    ),
    "handler by half": (
        GOOD + "serve: {handler: models/half_handler.py}\n",
        "serve.handler", 3, "models/half_handler.py", "neither both of preprocess", "it has preprocess only",
    ),
    "handler with a control character": (
        GOOD + "serve: {handler: \"models/a\\0.py\"}\n",
        "serve.handler", 3, "\\u0000", "is not a path", "forward slashes",
    ),
    "handler with a name too long": (
        GOOD + f"serve: {{handler: {'a' * 300}.py}}\n",
        "serve.handler", 3, "aaaa", "cannot be read", "Correct the path",
    ),
    "server unknown": (
        GOOD + "serve: {server: torch-serve}\n",
        "serve.server", 3, "torch-serve", "not possible here", "Did you mean torchserve?",
    ),
    "server triton": (
        GOOD + "serve: {server: triton}\n",
        "serve.server", 3, "triton", "no Triton image for Inferentia", "torchserve or native",
    ),
    "instance without ml": (
        GOOD + "serve: {instance_type: inf1.xlarge}\n",
        "serve.instance_type", 3, "inf1.xlarge", "not a known instance type", "Did you mean ml.inf1.xlarge?",
    ),
    "instance of another chip": (
        GOOD + "serve: {instance_type: ml.g5.xlarge}\n",
        "serve.instance_type", 3, "ml.g5.xlarge", "not a known instance type", "ml.inf1.2xlarge",
    ),
    "target against instance": (
        GOOD + "compile: {target: inf1}\nserve: {instance_type: ml.inf2.xlarge}\n",
        "serve.instance_type", 4, "ml.inf2.xlarge", "compile.target is inf1", "target: inf2",
    ),
    "worker larger than the instance": (
        GOOD + "serve: {cores_per_worker: 8}\n",
        "serve.cores_per_worker", 3, "8", "more than the 4 cores", "Write one of 1, 2, 4",
    ),
    "worker that does not divide": (
        GOOD + "serve: {cores_per_worker: 3}\n",
        "serve.cores_per_worker", 3, "3", "does not divide the 4 cores", "1, 2, 4",
    ),
    "worker smaller than the pipeline": (
        GOOD + "compile: {pipeline_cores: 4}\nserve: {cores_per_worker: 2}\n",
        "serve.cores_per_worker", 4, "2", "not a multiple of the 4 cores", "Write one of 4",
    ),
    "worker without cores": (
        GOOD + "serve: {cores_per_worker: 0}\n",
        "serve.cores_per_worker", 3, "0", "too small", "1 or more",
    ),
    "workers beyond the host's memory": (
        OWN
        + "  family: depth_anything_v2\n  weights: {file: weights/huge.safetensors}\n"
        + "serve: {instance_type: ml.inf1.xlarge, server: torchserve}\n",
        "serve.cores_per_worker", 5, "1",
        "4 workers of about 4.2 GiB each, 17.0 GiB in all, more than the 8 GiB", "larger instance_type",
    ),
    "processes beside torchserve": (
        GOOD + "serve: {server: torchserve, processes: 2}\n",
        "serve.processes", 3, "2", "not possible with server: torchserve", "write server: native",
    ),
    "processes that do not divide": (
        GOOD + "serve: {server: native, processes: 3}\n",
        "serve.processes", 3, "3", "does not divide the 4 workers of ml.inf1.2xlarge", "Write one of 1, 2, 4,",
    ),
    "processes that would share a copy": (
        GOOD + "compile: {pipeline_cores: 2}\nserve: {server: native, processes: 4}\n",
        "serve.processes", 4, "4", "does not divide the 2 workers of ml.inf1.2xlarge (4 cores, 2 a worker)", "1, 2,",
    ),
    "no process": (
        GOOD + "serve: {server: native, processes: 0}\n",
        "serve.processes", 3, "0", "too small", "1 or more",
    ),
    "half a process": (
        GOOD + "serve: {server: native, processes: 1.5}\n",
        "serve.processes", 3, "1.5", "is not a whole number", "whole number",
    ),
    "processes beyond the host's memory": (
        OWN
        + "  family: depth_anything_v2\n  weights: {file: weights/huge.safetensors}\n"
        + "serve: {instance_type: ml.inf1.xlarge, server: native, processes: 2}\n",
        "serve.processes", 5, "2",
        "2 processes of about 4.2 GiB each, 8.5 GiB in all, more than the 8 GiB", "Write fewer processes",
    ),
    "neuron-monitor without a network": (
        GOOD + "serve: {network_isolation: true, neuron_monitor: true}\n",
        "serve.neuron_monitor", 3, "true", "not possible with network_isolation: true", "Leave one of them out",
    ),
    "canary of one": (
        GOOD + "compile: {target: inf2}\nrollout: {strategy: canary}\n",
        "rollout.strategy", 4, "canary", "not possible with scale.min: 1: its first step needs 2", "Write scale.min: 2",
    ),
    "steps of three": (
        GOOD + "compile: {target: inf2}\nrollout: {strategy: linear}\nscale: {min: 3, max: 6}\n",
        "rollout.strategy", 4, "linear", "its first step needs 4 instances", "blue-green",
    ),
    "more at the beginning than at most": (
        GOOD + "scale: {initial: 3}\n", "scale.initial", 3, "3", "is more than scale.max, 2", "raise scale.max",
    ),
    "logs that are there and kept": (
        GOOD + "logs: {existing: true, keep: true}\n", "logs.keep", 3, "true", "beside existing: true", "Keep one",
    ),
    "network of a processing job": (
        GOOD + "job: {subnets: [subnet-0a1b2c3d], security_group: sg-0a1b2c3d}\n",
        "job.subnets", 3, "subnet-0a1b2c3d", "not possible with where: processing", "where: ec2",
    ),
    "subnets alone": (
        GOOD + "job: {where: ec2, subnets: [subnet-0a1b2c3d]}\n",
        "job.subnets", 3, "subnet-0a1b2c3d", "is given without job.security_group", "Write security_group too",
    ),
    "a name for a subnet": (
        GOOD + "job: {where: ec2, subnets: [private-a], security_group: sg-0a1b2c3d}\n",
        "job.subnets", 3, "private-a", "is no id of that kind", "such as subnet-0a1b2c3d",
    ),
    "delay without unit": (
        GOOD + "serve: {max_batch_delay: 5}\n",
        "serve.max_batch_delay", 3, "5", "has no unit", "5ms",
    ),
    "delay in bytes": (
        GOOD + "serve: {max_batch_delay: 5MB}\n",
        "serve.max_batch_delay", 3, "5MB", "unknown unit MB", "5ms",
    ),
    "delay of words": (
        GOOD + "serve: {max_batch_delay: soon}\n",
        "serve.max_batch_delay", 3, "soon", "not a duration", "250ms",
    ),
    "delay too fine": (
        GOOD + "serve: {max_batch_delay: 0.5us}\n",
        "serve.max_batch_delay", 3, "0.5us", "finer than a microsecond", "500us",
    ),
    "delay as long as the alarm": (
        GOOD + "serve: {max_batch_delay: 2s}\n",
        "serve.max_batch_delay", 3, "2s", "not below alarms.p99_latency, 1s", "raise p99_latency",
    ),
    "pixels with a unit": (
        GOOD + "serve: {limits: {pixels: 40MP}}\n",
        "serve.limits.pixels", 3, "40MP", "not a count", "40M",
    ),
    "pixels not whole": (
        GOOD + "serve: {limits: {pixels: 0.0001k}}\n",
        "serve.limits.pixels", 3, "0.0001k", "not a whole number", "40M",
    ),
    "items zero": (GOOD + "serve: {limits: {items: 0}}\n", "serve.limits.items", 3, "0", "too small", "1 or more"),
    "items negative": (
        GOOD + "serve: {limits: {items: -1}}\n",
        "serve.limits.items", 3, "-1", "is negative", "above zero",
    ),
    "batch transform on Inf1": (
        GOOD + "serve: {mode: batch-transform}\n",
        "serve.mode", 3, "batch-transform", "batch transform has no Inf1", "Write real-time",
    ),
    "batch transform on Inf2": (
        GOOD + "compile: {target: inf2}\nserve: {mode: batch-transform}\n",
        "serve.mode", 4, "batch-transform", "not deployed by this version", "Write real-time",
    ),
    "async": (
        GOOD + "serve: {mode: async}\n",
        "serve.mode", 3, "async", "not deployed by this version", "Write real-time",
    ),
    "min 0": (
        GOOD + "scale:\n  min: 0\n",
        "scale.min", 4, "0", "is not possible: a real-time endpoint keeps", "Write 1",
    ),
    "min negative": (GOOD + "scale: {min: -1}\n", "scale.min", 3, "-1", "too small", "0 or more"),
    "min above max": (
        GOOD + "scale: {min: 3, max: 2}\n",
        "scale.min", 3, "3", "more than scale.max, 2", "Write 2 at most",
    ),
    "max too many": (
        GOOD + "scale: {max: 100000}\n",
        "scale.max", 3, "100000", "more than 1000 instances", "1000 at most",
    ),
    "max text": (GOOD + "scale: {max: many}\n", "scale.max", 3, "many", "not a whole number", "Write a whole number"),
    "policy unknown": (GOOD + "scale: {policy: cpu}\n", "scale.policy", 3, "cpu", "not possible here", "concurrency"),
    "policy without target": (
        GOOD + "scale: {policy: invocations}\n",
        "scale.policy", 3, "invocations", "target_value is missing", "Write target_value",
    ),
    "target_value zero": (
        GOOD + "scale: {target_value: 0}\n",
        "scale.target_value", 3, "0", "too small", "0.001 or more",
    ),
    "target_value that rounds to zero": (
        GOOD + "scale: {target_value: 1e-300}\n",
        "scale.target_value", 3, "1e-300", "too small", "0.001 or more",
    ),
    "target_value beyond all": (
        GOOD + "scale: {target_value: 1e300}\n",
        "scale.target_value", 3, "1e+300", "too large", "or less",
    ),
    "max like octal": (GOOD + "scale: {max: 017}\n", "scale.max", 3, "017", "begins with a zero", "Leave the zero out"),
    "target_value a percentage": (
        GOOD + "scale: {target_value: 70%}\n",
        "scale.target_value", 3, "70%", "not a number", "without quotes or unit",
    ),
    "latency without unit": (
        GOOD + "alarms: {p99_latency: 250}\n",
        "alarms.p99_latency", 3, "250", "has no unit", "250ms",
    ),
    "latency zero": (
        GOOD + "alarms: {p99_latency: 0ms}\n",
        "alarms.p99_latency", 3, "0ms", "no time at all", "250ms",
    ),
    "latency never reached": (
        GOOD + "alarms: {p99_latency: 2min}\n",
        "alarms.p99_latency", 3, "2min", "can never be exceeded", "1min. Write less",
    ),
    "error rate a fraction": (
        GOOD + "alarms: {error_rate: 0.01}\n",
        "alarms.error_rate", 3, "0.01", "has no unit", "1%",
    ),
    "error rate negative": (
        GOOD + "alarms: {error_rate: -1%}\n",
        "alarms.error_rate", 3, "-1%", "not a percentage", "99.5%",
    ),
    "error rate never exceeded": (
        GOOD + "alarms: {error_rate: 100%}\n",
        "alarms.error_rate", 3, "100%", "can never be exceeded", "such as 1%",
    ),
    "requests zero": (GOOD + "alarms: {min_requests: 0}\n", "alarms.min_requests", 3, "0", "too small", "1 or more"),
    "notify a word": (GOOD + "alarms: {notify: me}\n", "alarms.notify", 3, "me", "neither the ARN", "arn:aws:sns:"),
    "notify an elided topic": (
        GOOD + "alarms: {notify: \"arn:aws:sns:...\"}\n",
        "alarms.notify", 3, "arn:aws:sns:...", "neither the ARN", "name@example.org",
    ),
    "notify twice": (
        GOOD + "alarms: {notify: [a@example.org, a@example.org]}\n",
        "alarms.notify", 3, "a@example.org", "names a@example.org twice", "Keep one",
    ),
    "notify more topics than an alarm has actions": (
        GOOD + f"alarms: {{notify: {[f'arn:aws:sns:us-east-1:123456789012:t{i}' for i in range(5)]}}}\n",
        "alarms.notify", 3, "arn:aws:sns", "names 5 topics", "4 at most",
    ),
    "notify a variable": (
        GOOD + "alarms: {notify: \"${AWS::Region}@example.org\"}\n",
        "alarms.notify", 3, "${AWS::Region}", "neither the ARN", "name@example.org",
    ),
    "notify an empty list": (
        GOOD + "alarms: {notify: []}\n",
        "alarms.notify", 3, "[]", "not a receiver", "email address",
    ),
    "blue-green on Inf1": (
        GOOD + "rollout: {strategy: blue-green}\n",
        "rollout.strategy", 3, "blue-green", "guardrails exclude Inf1", "all-at-once",
    ),
    "canary on Inf1": (
        GOOD + "rollout: {strategy: canary}\n",
        "rollout.strategy", 3, "canary", "not possible on ml.inf1.2xlarge", "ml.inf2",
    ),
    "linear on Inf1": (
        GOOD + "rollout: {strategy: linear}\n",
        "rollout.strategy", 3, "linear", "guardrails exclude Inf1", "all-at-once",
    ),
    "strategy unknown": (
        GOOD + "rollout: {strategy: bluegreen}\n",
        "rollout.strategy", 3, "bluegreen", "not possible here", "Did you mean blue-green?",
    ),
    "tag of AWS": (GOOD + "tags: {'aws:x': y}\n", "tags", 3, "aws:x", "has the key aws:x", "choose another"),
    "tag of a rehearsal": (
        GOOD + "tags: {Rehearsal: 'no'}\n",
        "tags", 3, "Rehearsal", "has the key Rehearsal", "choose another",
    ),
    "tags that are one to IAM": (
        GOOD + "tags: {Team: a, team: b}\n",
        "tags", 3, "Team", "the keys Team and team", "Keep one",
    ),
    "tag like octal": (GOOD + "tags: {team: 007}\n", "tags.team", 3, "007", "begins with a zero", "quote it"),
    "tag a number": (GOOD + "tags: {team: 7}\n", "tags", 3, "7", "team that is not text", "{team: \"7\"}"),
    "tag with a bad character": (
        GOOD + "tags: {team: 'a<b'}\n",
        "tags", 3, "a<b", "AWS does not take", "letters, digits",
    ),
    "tags too many": (
        GOOD + f"tags: {{{', '.join(f't{i}: x' for i in range(41))}}}\n",
        "tags", 3, "t0", "41 tags", "40 at most",
    ),
    "tags a list": (GOOD + "tags: [a]\n", "tags", 3, "[\"a\"]", "not a mapping of tags", "{team: documents}"),
    "nan": (
        GOOD + "scale: {target_value: .nan}\n",
        "scale.target_value", 3, ".nan", "not a finite number", "ordinary number",
    ),
    "infinity": (
        GOOD + "scale: {target_value: -.inf}\n",
        "scale.target_value", 3, "-.inf", "not a finite number", "ordinary number",
    ),
    "overflow": (
        GOOD + "scale: {target_value: 1e999}\n",
        "scale.target_value", 3, "1e999", "not a finite number", "ordinary number",
    ),
    "a number of many digits": (
        GOOD + f"scale: {{max: {'9' * 5000}}}\n",
        "scale.max", 3, "9999", "not a whole number", "Write a whole number",
    ),
    "duplicate key": (
        GOOD + "tags: {a: b}\ntags: {c: d}\n",
        "tags", 4, "", "given twice (first on line 3)", "Keep one",
    ),
    "duplicate key, deep": (
        GOOD + "scale:\n  min: 1\n  min: 2\n",
        "scale.min", 5, "", "given twice (first on line 4)", "Keep one",
    ),
    "key a number": (GOOD + "tags: {1: a}\n", "tags", 3, "1", "not a string", "quote it (\"1\")"),
    "key null": (GOOD + "tags: {~: a}\n", "tags", 3, "~", "not a string", "quote it"),
    "key a list": (GOOD + "tags: {[a]: b}\n", "tags", 3, "a list or mapping", "not a string", "Write a name"),
    "yes is text": (GOOD + "scale: {min: yes}\n", "scale.min", 3, "yes", "not a whole number", "whole number"),
    "sixty is not base sixty": (
        GOOD + "scale: {min: 1:30}\n",
        "scale.min", 3, "1:30", "not a whole number", "whole number",
    ),
    "half a character": (
        GOOD + 'tags: {a: "\\ud800"}\n',
        "tags.a", 3, "\\ud800", "half a character", "character itself",
    ),
    "half a character in a key": (
        GOOD + 'tags: {"\\udfff": a}\n',
        "tags", 3, "\\udfff", "half a character", "character itself",
    ),
    "merge key": (GOOD + "scale: {<<: {min: 1}}\n", "scale.<<", 3, "", "not a known key", "The keys here are"),
}
# fmt: on


@pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())
def test_names_key_line_value_reason_and_remedy(case: Case, read: Loader, project: Path) -> None:
    text, key, line, value, reason, remedy = case
    (project / "folder.py").mkdir()
    for name, place in (("a.safetensors", "a-1.safetensors"), ("out", "../a"), ("no", None)):
        (project / f"weights/{name}.index.json").write_text(json.dumps({"weight_map": place and {"w": place}}))
    with (project / "weights/huge.safetensors").open("wb") as stream:
        stream.truncate(2 * 2**30)  # sparse: it takes no space
    with pytest.raises(SpecErrors) as caught:
        read(text)
    assert len(caught.value.errors) == 1, str(caught.value)
    (error,) = caught.value.errors
    assert error.key == key
    assert value in error.value
    assert reason in error.problem
    shown = str(error)
    assert shown.startswith(f"endpoints/depth.yaml:{line}: {key}: ")
    assert error.value in shown
    assert error.problem in shown
    assert remedy in shown
    assert "\n" not in shown


def test_there_are_enough_of_them() -> None:
    assert len(CASES) >= 60


# id: (bytes of the file, line or 0, words of the message)
FILES: dict[str, tuple[bytes, int, tuple[str, ...]]] = {
    "empty": (b"", 1, ("is empty", "zoo/")),
    "comments only": (b"# nothing\n", 1, ("is empty", "zoo/")),
    "a list": (b"- a\n", 1, ("not a mapping of keys", "Begin with name:")),
    "a word": (b"depth\n", 1, ("depth is not a mapping", "Begin with name:")),
    "anchor": (GOOD.encode() + b"tags: &all {a: b}\n", 3, ("anchor &all", "Write the value out")),
    "alias": (GOOD.encode() + b"tags: &all {a: b}\nscale: *all\n", 4, ("alias *all", "Write the value out")),
    "tag": (GOOD.encode() + b"tags: !!python/object/apply:os.system [ls]\n", 3, ("uses the tag", "Remove the tag")),
    "scalar tag": (GOOD.encode() + b"tags: {a: !mine b}\n", 3, ("uses the tag !mine", "Remove the tag")),
    "two documents": (GOOD.encode() + b"---\n" + GOOD.encode(), 3, ("second document", "one document")),
    "tab as indentation": (GOOD.encode() + b"scale:\n\tmin: 1\n", 4, ("tab", "Indent with spaces")),
    "tab after a key": (GOOD.encode() + b"scale:\t{min: 1}\n", 3, ("tab", "Use spaces")),
    "not closed": (GOOD.encode() + b"scale: {min: 1\n", 4, ("is not YAML", "Correct the line")),
    "colon in a value": (b"name: depth\nmodel: weights: x\n", 2, ("is not YAML", "needs quotes")),
    "UTF-16": (GOOD.encode("utf-16"), 1, ("is not UTF-8", "Save the file as UTF-8")),
    "Latin-1": (GOOD.encode() + "tags: {a: é}\n".encode("latin-1"), 3, ("0xe9", "Save the file as UTF-8")),
    "NUL": (GOOD.encode() + b"tags: {a: \x00}\n", 3, ("U+0000", "Remove it")),
    "escape": (GOOD.encode() + b"tags: {a: \x1b[31m}\n", 3, ("U+001B", "Remove it")),
    "huge": (GOOD.encode() + b"#" * 300_000, 0, ("more than the 262144", "Make it smaller")),
    "deep": (b"tags: " + b"[" * 5000, 1, ("nested deeper than 20", "flatter")),
    "directive": (b"%FOO bar\n%YAML 3.0\n---\n" + GOOD.encode(), 2, ("is not YAML", "Correct the line")),
}


@pytest.mark.parametrize(("content", "line", "words"), FILES.values(), ids=FILES.keys())
def test_a_file_that_is_no_spec(content: bytes, line: int, words: tuple[str, ...], project: Path) -> None:
    path = project / "endpoints/depth.yaml"
    path.write_bytes(content)
    with pytest.raises(SpecErrors) as caught:
        load(path)
    text = str(caught.value.errors[0]) if "alias" not in words[0] else str(caught.value.errors[-1])
    assert text.startswith(f"endpoints/depth.yaml:{line}: " if line else "endpoints/depth.yaml: ")
    assert all(word in text for word in words), text


def test_a_file_that_is_not_there(project: Path) -> None:
    with pytest.raises(SpecErrors, match=r"endpoints/none\.yaml: cannot be read: No such file.*Name a file"):
        load(project / "endpoints/none.yaml")


def test_a_folder(project: Path) -> None:
    with pytest.raises(SpecErrors, match=r"cannot be read: Is a directory"):
        load(project / "endpoints")


def test_a_file_that_no_command_would_find(project: Path) -> None:
    (project / "endpoints/depth.yml").write_text(GOOD)
    with pytest.raises(SpecErrors, match=r"endpoints/depth\.yml:1: ends in \.yml, .*Rename it to depth\.yaml"):
        load_all(project)


def test_all_errors_come_together_in_the_order_of_lines(read: Loader) -> None:
    text = (
        "name: deep\n"
        "model:\n"
        "  family: depth\n"
        "  weights: nothing\n"
        "compile:\n"
        "  target: inf1\n"
        "  timeout: 45\n"
        "serve:\n"
        "  instance_type: ml.inf2.xlarge\n"
        "  cores: 3\n"
        "scale:\n"
        "  min: 0\n"
        "  min: 1\n"
        "  target_value: .nan\n"
        "alarms:\n"
        "  p99_latency: 90s\n"
    )
    with pytest.raises(SpecErrors) as caught:
        read(text)
    assert [(error.line, error.key) for error in caught.value.errors] == [
        (1, "name"),
        (3, "model.family"),
        (4, "model.weights"),
        (7, "compile.timeout"),
        (9, "serve.instance_type"),
        (10, "serve.cores"),
        (13, "scale.min"),
        (14, "scale.target_value"),
        (16, "alarms.p99_latency"),
    ]
    assert str(caught.value).count("\n") == 8


def test_one_slip_gives_one_message(read: Loader) -> None:
    """What follows from a faulty key is not reported beside it."""
    with pytest.raises(SpecErrors) as caught:
        read(
            GOOD
            + "compile: {target: inf3}\nrollout: {strategy: canary}\n"
            + "serve: {cores_per_worker: 2, instance_type: ml.inf2.xlarge}\n"
        )
    assert [error.key for error in caught.value.errors] == ["compile.target"]


def test_links_do_not_lead_out(read: Loader, project: Path, tmp_path: Path) -> None:
    (tmp_path / "outside.py").write_text("def build():\n    return None\n")
    (project / "models/link.py").symlink_to(tmp_path / "outside.py")
    with pytest.raises(SpecErrors, match=r"models/link\.py:build leads out of the project"):
        read(OWN + '  entry: models/link.py:build\n  weights: "random:0"\n')


def test_links_in_a_circle(read: Loader, project: Path) -> None:
    (project / "models/circle.py").symlink_to(project / "models/circle.py")
    with pytest.raises(SpecErrors, match=r"models/circle\.py:build (cannot be read|does not exist)"):
        read(OWN + '  entry: models/circle.py:build\n  weights: "random:0"\n')


def test_declared_digest_of_weights(project: Path) -> None:
    path = project / "endpoints/depth.yaml"
    digest = "0" * 32 + "e" + "1" * 31
    path.write_text(
        OWN + f"  family: depth_anything_v2\n  weights: {{file: weights/invoices.safetensors, sha256: {digest}}}\n"
    )
    load(path)  # reading a spec does not read gigabytes
    with pytest.raises(SpecErrors, match=r"depth\.yaml:4: model\.weights: weights/invoices.safetensors has the sha256"):
        load(path, verify_weights=True)


def test_names_that_differ_in_case_alone(project: Path) -> None:
    for name in ("depth", "Depth"):
        (project / f"endpoints/{name}.yaml").write_text(f"name: {name}\n" + MODEL)
    if len(list((project / "endpoints").glob("*epth.yaml"))) < 2:
        pytest.skip("this file system ignores case too")
    for read in (lambda: load_all(project), lambda: load(project / "endpoints/depth.yaml")):
        with pytest.raises(SpecErrors, match=r"depth\.yaml:1: name: depth differs from Depth in case alone.*Rename"):
            read()
