"""The platform table: every row complete, dated and sourced."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from endpoint_spec import SpecErrors, platforms
from endpoint_spec.platforms import UnknownPlatform, image, platform, price, registry_account, registry_accounts


@pytest.mark.parametrize("instance_type", [*platforms.instance_types("inf1"), *platforms.instance_types("inf2")])
def test_rows(instance_type: str) -> None:
    row = platform(instance_type)
    assert row.family == instance_type.split(".")[1]
    assert row.cores == row.chips * (4 if row.family == "inf1" else 2)
    assert row.device_memory_gib == row.chips * (8 if row.family == "inf1" else 32)
    assert row.vcpu >= 4
    assert row.memory_gib >= 8
    assert row.tflops_per_core * row.cores == row.chips * (64 if row.family == "inf1" else 190)
    assert row.features.guardrails is row.features.batch_transform is (row.family == "inf2")
    assert row.source
    assert re.fullmatch(r"20\d\d-\d\d-\d\d", row.date)
    assert row.ec2_price is not None
    assert row.ec2_price.official
    assert row.ec2_price.source


@pytest.mark.parametrize("instance_type", platforms.instance_types("cpu"))
def test_rows_of_the_cpu(instance_type: str) -> None:
    row = platform(instance_type)
    assert (row.chips, row.device_memory_gib, row.tflops_per_core) == (0, 0, None)
    assert row.vcpu == 2 * row.cores
    assert row.memory_gib == row.vcpu * {"c7i": 2, "m7i": 4}[instance_type.split(".")[1]]
    assert row.features.guardrails
    assert row.sagemaker_price is row.ec2_price is None  # nobody was found who says it


def test_prices_are_dated_and_sourced_or_unknown() -> None:
    known = platform("ml.inf1.2xlarge").sagemaker_price
    assert known is not None
    assert (known.usd_per_hour, known.official, known.overridden) == (0.471, False, False)
    assert known.source
    assert known.date
    assert platform("ml.inf1.24xlarge").sagemaker_price is None


OWN = "date: '2027-01-01'\nregion: eu-west-1\nsagemaker: {source: our contract, usd_per_hour: {ml.inf1.24xlarge: 4}}\n"


def test_prices_of_ones_own(tmp_path: Path) -> None:
    (tmp_path / "prices.yaml").write_text(OWN)
    own = platform("ml.inf1.24xlarge", tmp_path).sagemaker_price
    assert own is not None
    assert (own.usd_per_hour, own.region, own.source, own.overridden) == (4.0, "eu-west-1", "our contract", True)
    shipped = price("ml.inf1.2xlarge", "sagemaker", tmp_path)
    assert shipped is not None
    assert not shipped.overridden
    ec2 = price("ml.inf1.24xlarge", "ec2", tmp_path)
    assert ec2 is not None
    assert not ec2.overridden


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (OWN.replace("source: our contract, ", ""), r"prices.yaml:3: sagemaker.source: is missing"),
        (OWN.replace(": 4}", ": cheap}"), r"prices.yaml:3: sagemaker.usd_per_hour.ml.inf1.24xlarge: cheap"),
        (OWN + "ec3: {}\n", r"prices.yaml:4: ec3: is not a known key. Did you mean ec2\?"),
    ],
)
def test_prices_of_ones_own_that_are_wrong(text: str, words: str, tmp_path: Path) -> None:
    (tmp_path / "prices.yaml").write_text(text)
    with pytest.raises(SpecErrors, match=words):
        price("ml.inf1.2xlarge", "sagemaker", tmp_path)


def test_an_unknown_instance_type() -> None:
    with pytest.raises(UnknownPlatform) as caught:
        platform("ml.inf1.3xlarge")
    assert re.match(r"ml\.inf1\.3xlarge is not .* Did you mean ml\.inf1\..?xlarge\?", str(caught.value))


@pytest.mark.parametrize("found", platforms.images(), ids=lambda found: f"{found.sdk}-{found.server}")
def test_images(found: platforms.Image) -> None:
    assert found == image(found.target, found.server, found.sdk)
    assert found.registry == ("aws" if found.server == "torchserve" else "own")
    assert found.tag.startswith(found.torch)
    ubuntu = {"20.04": "2.31", "22.04": "2.35", "24.04": "2.39"}
    assert found.registry == "own" or ubuntu[found.tag.rpartition("ubuntu")[2]] == found.glibc
    assert f"py{found.python.replace('.', '')}" in found.tag
    if found.target == "cpu":
        assert (found.sdk, found.driver, f"python:{found.python}-slim" in str(found.base)) == (None, None, True)
    else:
        assert platforms.machine_image(found.torch).python.endswith("/bin/python")
        assert str(found.sdk) in found.tag
    assert found.source


def test_the_images_of_aws() -> None:
    inf1, inf2 = image("inf1", "torchserve"), image("inf2", "torchserve")
    assert (inf1.repository, inf1.tag) == (
        "pytorch-inference-neuron",
        "1.13.1-neuron-py310-sdk2.20.2-ubuntu20.04",
    )
    assert (inf2.repository, inf2.tag) == (
        "pytorch-inference-neuronx",
        "2.5.1-neuronx-py310-sdk2.21.1-ubuntu22.04",
    )
    assert str(inf2.driver).startswith(f"{platforms.host('inf2').driver}.")
    assert platforms.host("inf1").ami_version is None


def test_no_image() -> None:
    with pytest.raises(UnknownPlatform, match="no image for inf1 with triton"):
        image("inf1", "triton")
    with pytest.raises(UnknownPlatform, match=r"no image for inf2 2\.20\.2 with native.* inf2 2\.22\.0 with native"):
        image("inf2", "native", "2.20.2")


def test_registries() -> None:
    accounts = registry_accounts()
    assert all(re.fullmatch(r"\d{12}", account) for account in accounts.values())
    assert accounts["us-east-1"] == accounts["eu-west-1"] == "763104351884"
    assert accounts["ap-south-2"] == "772153158452"
    assert accounts["eu-central-2"] == "380420809688"
    assert accounts["il-central-1"] == "780543022126"
    assert not set(accounts) & set(platforms.refused_regions())
    assert set(accounts) == set(registry_accounts("inf1")) | set(registry_accounts("inf2"))
    assert set(registry_accounts("inf1")) - set(registry_accounts("inf2")) == {"ap-east-2"}
    assert set(registry_accounts("cpu")) == set(accounts)


@pytest.mark.parametrize(
    ("region", "reason"),
    [("us-west-1", "no Neuron images"), ("cn-north-1", "never tried"), ("eu-west-2", "in no list of regions")],
)
def test_regions_that_are_refused(region: str, reason: str) -> None:
    assert region not in registry_accounts()
    with pytest.raises(UnknownPlatform, match=f"{region} cannot be deployed to: .*{reason}.*Use one of"):
        registry_account(region)


def test_a_region_of_the_other_target() -> None:
    assert registry_account("ap-east-2", "inf1") == "975050140332"
    with pytest.raises(UnknownPlatform, match=r"no list of regions with Neuron images for inf2 \(huggingface-neuronx"):
        registry_account("ap-east-2", "inf2")


def test_compiler_arguments() -> None:
    assert platforms.compiler_arguments("inf1", "fp32-cast-matmult no-fast-relayout") == (
        "--fast-math",
        "fp32-cast-matmult",
        "no-fast-relayout",
    )
    assert platforms.compiler_arguments("inf2", "fp32-cast-all-fp16") == (
        "--auto-cast",
        "all",
        "--auto-cast-type",
        "fp16",
    )
    for word in [word for words in platforms.fast_math_groups("inf2").values() for word in words]:
        assert platforms.compiler_arguments("inf2", word)[0] == "--auto-cast"
