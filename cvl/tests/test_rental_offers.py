"""Which machine a job takes: memory of each GPU, processors, and prices in their own partition."""

from __future__ import annotations

import json
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cvl.catalog import Lookup, find, find_preset, needs_of
from cvl.cli.plan_approval import price_lines
from cvl.core.errors import NoCapacity, UsageError
from cvl.core.interfaces import Offer
from cvl.core.spec import Limits, Needs, Plan, Quote
from cvl.core.units import priced
from cvl.providers.aws.session import Account
from cvl.providers.lambda_cloud.cloud import arch_of, offer_of
from cvl.providers.sagemaker import price
from cvl.providers.sagemaker.job_options import JobOptions, runtime
from cvl.providers.sagemaker.s3_location import S3Location
from cvl.rental.offers import choose, fits, per_gpu, reading
from cvl.testing.lambda_cloud import catalog

CORPUS = Path(__file__).parents[3] / "shared/corpus"


def offer(name: str, gpus: int, vram: float, cents: int = 100, arch: str = "amd64") -> Offer:
    return Offer(
        type=name,
        price_per_hour=Decimal(cents) / 100,
        gpus=gpus,
        vram_gib=vram,
        cpus=64,
        ram_gib=512,
        disk_gib=4096,
        regions=("r",),
        arch=arch,
    )


V100S = offer("8x16", 8, 16, 400)
A100 = offer("1x80", 1, 80, 500)
A100S = offer("8x80", 8, 80, 4000)
PAIR = offer("2x80", 2, 80, 1000)
BIG = offer("2x180", 2, 180, 9000)
GRACE = offer("1xgh", 1, 96, 150, "arm64")


def taken(needs: Needs, *offers: Offer, kind: str | None = None) -> str:
    return choose(offers, needs, kind=kind, region=None)[0].type


@pytest.mark.parametrize(
    ("gpus", "vram", "offers", "type_", "words"),
    [
        (1, 80, (V100S, A100), "1x80", ""),
        (0, 80, (V100S, A100), "1x80", ""),
        (8, 80, (V100S, A100, A100S), "8x80", "each of 8 GPUs"),
        (2, 160, (V100S, A100, PAIR, A100S), "2x80", "2 GPUs have together"),
        (2, 160, (PAIR, BIG), "2x180", "each of 2 GPUs"),
        (2, 48, (V100S, PAIR), "2x80", "each of 2 GPUs"),
        (4, 100, (V100S, A100S), "8x80", "4 GPUs have together"),
    ],
)
def test_memory_is_each_gpu_s_unless_no_gpu_has_so_much(
    gpus: int, vram: float, offers: tuple[Offer, ...], type_: str, words: str
) -> None:
    needs = Needs(gpus=gpus, vram_gb=vram)
    assert taken(needs, *offers) == type_
    assert words in reading(offers, needs)
    assert bool(words) == bool(reading(offers, needs))


def test_eighty_gb_on_one_gpu_are_not_eight_gpus_with_sixteen() -> None:
    with pytest.raises(UsageError, match="80 GB of GPU memory"):
        taken(Needs(gpus=1, vram_gb=80), V100S)


def test_memory_that_nobody_tells_is_not_enough() -> None:
    silent = offer("8x?", 8, 0, 50)
    assert taken(Needs(gpus=1, vram_gb=80), silent, A100) == "1x80"
    assert taken(Needs(gpus=1), silent, A100) == "8x?"
    assert taken(Needs(gpus=1, vram_gb=80), silent, kind="8x?") == "8x?"
    with pytest.raises(UsageError, match="80 GB of GPU memory"):
        taken(Needs(gpus=1, vram_gb=80), silent, V100S)


@pytest.mark.parametrize(
    ("vram", "offers", "words"),
    [(640, (V100S,), "8 GPU, 640 GB of GPU memory together"), (80, (A100,), "80 GB .* each")],
)
def test_what_nobody_has_is_named_as_it_was_read(
    vram: float, offers: tuple[Offer, ...], words: str
) -> None:
    with pytest.raises(UsageError, match=words):
        taken(Needs(gpus=8, vram_gb=vram), *offers)


@pytest.mark.parametrize(
    ("described", "gib"),
    [("Tesla V100 (16 GB)", 16), ("V100 16GB", 16), ("B200 (180GiB SXM6)", 180), ("A10", 0)],
)
def test_memory_is_read_off_a_description(described: str, gib: float) -> None:
    asked = {**next(iter(catalog.TYPES.values())).json(), "gpu_description": described}
    entry = {"instance_type": asked, "regions_with_capacity_available": []}
    assert offer_of(entry).vram_gib == gib


def test_either_description_tells_the_processor() -> None:
    one = next(iter(catalog.TYPES.values())).json()
    asked = {**one, "description": "1x GH200", "gpu_description": "H100 (96 GB)"}
    assert offer_of({"instance_type": asked, "regions_with_capacity_available": []}).arch == "arm64"


NEEDS = st.builds(Needs, gpus=st.integers(0, 8), vram_gb=st.sampled_from([0, 8, 24, 80, 160]))
OFFERS = st.lists(
    st.builds(
        offer, st.just("x"), st.integers(0, 8), st.sampled_from([0, 16, 40, 80]), st.integers(1, 9)
    ),
    min_size=1,
    max_size=5,
)


@given(NEEDS, OFFERS)
def test_what_is_taken_has_the_memory_in_the_reading_that_is_said(
    needs: Needs, offers: list[Offer]
) -> None:
    most = per_gpu(offers, needs)
    for each in offers:
        if fits(each, needs, most) and each.vram_gib:
            assert each.vram_gib >= most
            assert each.vram_gib * max(needs.gpus, 1) >= needs.vram_gb
    if most != needs.vram_gb:
        assert needs.gpus > 1
        assert all(each.vram_gib < needs.vram_gb for each in offers)


@pytest.mark.parametrize(
    ("example", "type_", "words"),
    [
        ("minisora", "gpu_8x_a100_80gb_sxm4", "each of 8 GPUs"),
        ("real_video", "gpu_8x_a100_80gb_sxm4", "2 GPUs have together"),
        ("flashvsr", "gpu_1x_h100_pcie", ""),
        ("monst3r", "gpu_1x_h100_pcie", ""),
    ],
)
def test_both_readings_of_the_corpus(
    example: str, type_: str, words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not CORPUS.exists():
        pytest.skip("the corpus is not at hand")
    monkeypatch.setenv("CVL_CACHE_DIR", str(tmp_path))
    found = find(example, Lookup(named=CORPUS, configured=None, env={}, warn=lambda _text: None))
    needs = needs_of(found, find_preset(found, next(iter(found.presets))))
    offers = [
        offer_of({"instance_type": each.json(), "regions_with_capacity_available": [{"name": "r"}]})
        for each in catalog.TYPES.values()
    ]
    assert taken(needs, *offers) == type_
    assert words in reading(offers, needs)


# Processors


@pytest.mark.parametrize(
    ("words", "arch"),
    [
        ("gpu_1x_gh200 GH200 (96 GB)", "arm64"),
        ("gpu_4x_gb200 GB200 (186 GB)", "arm64"),
        ("gpu_1x_gb300 GB300", "arm64"),
        ("cpu_4x_grace Grace", "arm64"),
        ("gpu_1x_a10 A10 (24 GB PCIe)", "amd64"),
        ("gpu_8x_a100_80gb_sxm4 A100 (80 GB SXM4)", "amd64"),
        ("gpu_8x_b200_sxm6 B200 (180 GB SXM6)", "amd64"),
        ("gpu_8x_h100_sxm5gdr H100 (80 GB SXM5)", "amd64"),
        ("gpu_1x_rtx6000 RTX 6000 (24 GB)", "amd64"),
        ("gpu_4x_vr200 VR200", "arm64"),
        ("cpu_4x_arm", "arm64"),
        ("cpu_4x_altra Ampere Altra (ARM)", "arm64"),
        ("gpu_1x_t4g T4 on Graviton2", "arm64"),
        ("gpu_1x_charm", "amd64"),
    ],
)
def test_the_processor_of_a_type_is_read_off_its_name(words: str, arch: str) -> None:
    assert arch_of(words) == arch


def test_an_arm64_machine_is_taken_only_where_somebody_says_so() -> None:
    needs = Needs(gpus=1, vram_gb=80)
    assert taken(needs, GRACE, A100) == "1x80"
    assert taken(needs, GRACE, A100, kind="1xgh") == "1xgh"
    assert taken(Needs(gpus=1, archs=("arm64",)), GRACE, A100) == "1xgh"
    assert taken(Needs(gpus=1, archs=("amd64", "arm64")), GRACE, A100) == "1xgh"
    with pytest.raises(UsageError) as caught:
        taken(Needs(gpus=1, vram_gb=90), GRACE, A100)
    assert "1xgh has, but is arm64: name it with --gpu-type" in caught.value.hint


def test_that_all_are_taken_is_no_question_of_processors() -> None:
    gone = offer("1x80", 1, 80)
    with pytest.raises(NoCapacity):
        choose(
            [Offer(**{**_fields(gone), "regions": ()})],  # type: ignore[arg-type]
            Needs(gpus=1),
            kind=None,
            region=None,
        )


def _fields(each: Offer) -> dict[str, object]:
    return {name: getattr(each, name) for name in Offer.__slots__}


@pytest.mark.parametrize(
    ("written", "archs"),
    [
        ("arch: arm64", ("arm64",)),
        ("arch: [aarch64, x86_64]", ("amd64", "arm64")),
        ("platform: linux/arm64/v8", ("arm64",)),
        ("arch: riscv", ()),
        ("arch: 7", ()),
        ("disk_gb: 5", ()),
    ],
)
def test_an_example_may_say_what_it_runs_on(
    tmp_path: Path, written: str, archs: tuple[str, ...]
) -> None:
    folder = tmp_path / "examples/a/one"
    folder.mkdir(parents=True)
    (folder / "sh.sh").write_text("#!/bin/sh\n")
    (folder / "example.yaml").write_text(
        f"name: one\npresets: {{sh: {{script: sh.sh}}}}\nresources:\n  {written}\n"
    )
    found = find("one", Lookup(named=tmp_path, configured=None, env={}, warn=lambda _text: None))
    assert found.needs.archs == archs


@pytest.mark.parametrize(
    ("type_", "arm"),
    [
        ("ml.c7g.xlarge", True),
        ("ml.m7gd.large", True),
        ("ml.g5g.xlarge", True),
        ("ml.p6e-gb200.36xlarge", True),
        ("ml.g5.xlarge", False),
        ("ml.g4dn.xlarge", False),
        ("ml.p4d.24xlarge", False),
        ("ml.m5.large", False),
        ("ml.trn1.2xlarge", False),
    ],
)
def test_an_image_that_we_build_is_not_put_on_another_processor(type_: str, *, arm: bool) -> None:
    def job_options(image: str = "") -> JobOptions:
        role = "arn:aws:iam::123456789012:role/x"
        return JobOptions(
            role_arn=role, instance_type=type_, output=S3Location(bucket="bucket"), image=image
        )

    job_options("their/own:image").check_arch()
    if arm:
        with pytest.raises(UsageError, match="arm64"):
            job_options().check_arch()
    else:
        job_options().check_arch()


# Prices of other partitions


@pytest.mark.parametrize(
    ("region", "asked", "currency"),
    [
        ("us-east-1", "us-east-1", "USD"),
        ("eu-west-1", "eu-central-1", "USD"),
        ("ap-northeast-1", "ap-south-1", "USD"),
        ("sa-east-1", "us-east-1", "USD"),
        ("cn-north-1", "cn-northwest-1", "CNY"),
        ("cn-northwest-1", "cn-northwest-1", "CNY"),
        ("us-gov-west-1", "us-gov-west-1", "USD"),
        ("us-gov-east-1", "us-gov-west-1", "USD"),
        ("us-iso-west-1", "us-iso-east-1", "USD"),
        ("us-isob-east-1", "us-isob-east-1", "USD"),
        ("eusc-de-east-1", "eusc-de-east-1", "EUR"),
    ],
)
def test_a_price_is_asked_in_its_own_partition_and_currency(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, region: str, asked: str, currency: str
) -> None:
    monkeypatch.setenv("CVL_STATE_DIR", str(tmp_path))
    account = Account(region)
    heard = list[str]()

    def once(service: str, operation: str, *, region: str = "", **_more: Any) -> Any:
        heard.append(f"{service} {operation} {region}")
        return {"PriceList": [json.dumps(_product(currency))]}

    monkeypatch.setattr(account, "once", once)
    assert price.hourly(account, "ml.g5.xlarge") == Decimal("9.5")
    assert heard == [f"pricing get_products {asked}"]
    assert price.currency(region) == currency


def _product(currency: str) -> dict[str, object]:
    other = {"USD": "0.0000000000"} if currency != "USD" else {}
    dimension = {"pricePerUnit": {currency: "9.5000000000", **other}}
    return {"terms": {"OnDemand": {"X": {"priceDimensions": {"Y": dimension}}}}}


@pytest.fixture
def regions() -> list[str]:
    session = pytest.importorskip("botocore.session").get_session()
    return [
        region
        for partition in session.get_available_partitions()
        for region in session.get_available_regions("sagemaker", partition_name=partition)
    ]


def test_no_region_s_price_is_asked_in_another_partition(regions: list[str]) -> None:
    session = pytest.importorskip("botocore.session").get_session()
    assert len(regions) > 20
    for each in regions:
        there = session.get_partition_for_region(each)
        assert session.get_partition_for_region(price.list_region(each)) == there, each


def test_an_amount_is_shown_and_limited_in_its_own_currency() -> None:
    assert priced(Decimal("9.5"), "CNY") == "CNY 9.50"
    quote = Quote(price_per_hour=Decimal("9.5"), max_cost=Decimal(19), currency="CNY")
    line = price_lines(Plan(runner="sagemaker", where="x", request={}, quote=quote))[0]
    assert line == "price: CNY 9.50 an hour, at most CNY 19.00 (x)"
    found = runtime(Limits(max_cost=Decimal(19)), Decimal("9.5"), "CNY")
    assert found.seconds == 7200 - 120
    assert "counted in CNY" in found.why
