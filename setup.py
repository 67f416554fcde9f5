"""Packaging of kpdata; also the file that Beam's ``--setup_file`` ships to remote workers."""

import re
from pathlib import Path

from setuptools import find_packages, setup

HERE = Path(__file__).parent
VERSION = re.search(r'__version__ = "(.+)"', (HERE / "kpdata" / "__init__.py").read_text())[1]

BEAM = "apache-beam>=2.70,<3"

TRAIN = [
    "keras>=3.12",
    "tensorflow>=2.20",
    "pycocotools>=2.0.8",
    "matplotlib>=3.9",
    "tensorboard>=2.19",
    "tflite>=2.18",
]

EXPORTERS = [
    "ai-edge-litert>=2",
    "keras>=3.13",
    "onnx>=1.17",
    "onnxruntime>=1.20",
    "tf2onnx>=1.16",
]

S3 = ["boto3>=1.35"]
GCS = ["gcsfs>=2025.2"]
AZURE = ["adlfs>=2024.12"]
HDFS = ["fsspec>=2025.2", "requests>=2.31"]
VIDEO = ["imageio-ffmpeg>=0.5"]

TEST = [
    *EXPORTERS,
    *S3,
    *VIDEO,
    "build>=1.2",
    "fsspec>=2025.2",
    "hypothesis>=6.100",
    "jax>=0.4.35",
    "matplotlib>=3.9",
    "moto[s3,server]>=5",
    "ipykernel>=6.29",
    "mypy>=1.15",
    "nbconvert>=7.16",
    "pandas>=2.2",
    "pycocotools>=2.0.8",
    "pytest>=8.2",
    "pytest-xdist>=3.6",
    "ruff>=0.9",
    "scipy>=1.13",
    "tensorboard>=2.19",
    "tensorflow-cpu>=2.20",
    "tensorflow-datasets>=4.9.9",
    "tflite>=2.18",
    "twine>=6",
]

CLUSTER = [
    "apache-beam[dask]>=2.70,<3",
    "apache-flink-libraries==1.19.3",
    "hypothesis>=6.100",
    "pyspark==3.5.0",
    "pytest>=8.2",
    "pytest-xdist>=3.6",
]
"""For the tests on clusters; pyspark is the release that Beam's Spark job server has in it."""

setup(
    name="kpdata",
    version=VERSION,
    description="Keypoint datasets: any annotation into verified, leak-free TFRecord shards",
    long_description=(HERE / "README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    license_files=["LICENSE"],
    python_requires=">=3.11",
    packages=find_packages(include=["kpdata", "kpdata.*"]),
    package_data={"kpdata": ["py.typed"], "kpdata.shards.wire": ["*.proto"]},
    entry_points={"console_scripts": ["kpdata = kpdata.cli.main:main"]},
    install_requires=[
        BEAM,
        "blake3>=1",
        "click>=8.1",
        "google-crc32c>=1.5",
        "msgspec>=0.19",
        "numpy>=1.26",
        "opencv-python-headless>=4.11",
        "pillow>=11",
        "protobuf>=6.31,<8",
        "psutil>=5.9",
        "pyyaml>=6",
        "rich>=13.7",
    ],
    extras_require={
        "train": TRAIN,
        "export": [*TRAIN, *EXPORTERS],
        "video": VIDEO,
        "s3": S3,
        "gcs": GCS,
        "azure": AZURE,
        "hdfs": HDFS,
        "fuzz": ["atheris>=3"],
        "test": TEST,
        "cluster": CLUSTER,
    },
    classifiers=[
        "Development Status :: 4 - Beta",
        "Environment :: Console",
        "Intended Audience :: Developers",
        "Intended Audience :: Science/Research",
        "Operating System :: POSIX",
        "Programming Language :: Python :: 3",
        "Programming Language :: Python :: 3.11",
        "Programming Language :: Python :: 3.12",
        "Topic :: Scientific/Engineering :: Image Recognition",
        "Typing :: Typed",
    ],
)
