"""``dataset_info.json`` and ``features.json``, which ``tfds.builder_from_directory`` reads.

They are TFDS's ``DatasetInfo`` and ``Feature`` protos (tfds 4.9) as JSON, made without TFDS. TFDS
refuses unknown keys, so that everything else is in ``kpdata.json``.
"""

from typing import Any

import msgspec

from kpdata.shards.manifest import Manifest
from kpdata.shards.records import FEATURES, Feature

_PACKAGE = "tensorflow_datasets.core.features"
_DTYPES = {"float": "float32", "int64": "int64"}


def metadata(manifest: Manifest) -> dict[str, bytes]:
    """File name → content; both files depend on the manifest alone."""
    contents = {"dataset_info.json": _dataset_info(manifest), "features.json": _features()}
    return {
        name: msgspec.json.format(msgspec.json.encode(content), indent=1) + b"\n"
        for name, content in contents.items()
    }


def _dataset_info(manifest: Manifest) -> dict[str, Any]:
    splits = [
        {
            "name": name,
            "shardLengths": [str(shard.records) for shard in split.shards],
            "numBytes": str(sum(shard.bytes for shard in split.shards)),
            "filepathTemplate": "{SPLIT}-{SHARD_X_OF_Y}.{FILEFORMAT}",
        }
        for name, split in manifest.splits.items()
    ]
    return {
        "name": "kpdata",
        "version": "1.0.0",
        "description": f"{manifest.skeleton.name} keypoints from {manifest.source.format}",
        "fileFormat": "tfrecord",
        "moduleName": "kpdata",
        "splits": splits,
    }


def _features() -> dict[str, Any]:
    features = {feature.name: _feature(feature) for feature in FEATURES}
    return {
        "pythonClassName": f"{_PACKAGE}.features_dict.FeaturesDict",
        "featuresDict": {"features": features},
    }


def _feature(feature: Feature) -> dict[str, Any]:
    if feature.name == "image/encoded":
        shape = {"dimensions": ["-1", "-1", "3"]}
        return {
            "pythonClassName": f"{_PACKAGE}.image_feature.Image",
            "image": {"shape": shape, "dtype": "uint8"},
        }
    if feature.length in ("N", "NK"):
        return {
            "pythonClassName": f"{_PACKAGE}.sequence_feature.Sequence",
            "sequence": {"feature": _scalar(feature, {}), "length": "-1"},
        }
    return _scalar(feature, {} if feature.length == "1" else {"dimensions": [feature.length]})


def _scalar(feature: Feature, shape: dict[str, Any]) -> dict[str, Any]:
    if feature.kind == "bytes":
        return {"pythonClassName": f"{_PACKAGE}.text_feature.Text", "text": {}}
    return {
        "pythonClassName": f"{_PACKAGE}.tensor_feature.Tensor",
        "tensor": {"shape": shape, "dtype": _DTYPES[feature.kind], "encoding": "none"},
    }
