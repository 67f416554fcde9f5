"""DeepLabCut: a project with labeled-data/VIDEO/CollectedData_SCORER.csv."""

from kpdata.formats.base import IMAGES, Format, imported
from kpdata.formats.detect import Seen

_LABELED = "labeled-data"


def _detect(seen: Seen) -> str | None:
    if _LABELED in seen.names:
        return f"its folder {_LABELED}"
    if seen.is_folder and seen.path.absolute().name == _LABELED:
        tables = seen.path.glob("*/CollectedData_*.csv")
        return "its CollectedData files" if any(tables) else None
    first = [row[0] for row in seen.csv_rows if row]
    return "its rows scorer and bodyparts" if {"scorer", "bodyparts"} <= set(first) else None


def _hint(seen: Seen) -> str | None:
    is_config = {"bodyparts", "scorer"} <= seen.yaml.keys()
    return "give the folder of DeepLabCut's project" if is_config else None


FORMAT = Format(
    name="deeplabcut",
    summary="DeepLabCut: a project with labeled-data/VIDEO/CollectedData_SCORER.csv",
    coordinates="0-based pixel indices",
    visibility="empty cells = not labelled, no boxes",
    read=imported("kpdata.formats.deeplabcut.read:read"),
    detect=_detect,
    hint=_hint,
    aliases=("dlc", "deeplabcut_csv"),
    options=(IMAGES,),
    copied=frozenset({".csv", ".yaml"}),
)
