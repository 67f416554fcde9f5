import cv2
import numpy as np
import pytest

from kpdata.core.sample import ImageRef, Instance, Sample
from kpdata.core.skeleton import Skeleton
from kpdata.images import codec
from kpdata.view import draw
from kpdata.view.sheet import contact_sheet, with_legend

SKELETON = Skeleton(
    "kite",
    ("tip", "left_wing", "right_wing"),
    edges=(("left_wing", "right_wing"), ("tip", "left_wing")),
)
UNJOINED = Skeleton("kite", SKELETON.keypoints)
GREY = 100


def picture(width: int = 120, height: int = 90) -> np.ndarray:
    return np.full((height, width, 3), GREY, np.uint8)


def kite(*visibility: int, bbox_xyxy=None, is_crowd: bool = False) -> Instance:
    keypoints = np.array([[60.5, 15.5, 2], [95.5, 60.5, 2], [25.5, 60.5, 2]], np.float32)
    keypoints[:, 2] = visibility
    keypoints[keypoints[:, 2] == 0] = 0
    return Instance(keypoints, bbox_xyxy=bbox_xyxy, is_crowd=is_crowd)


def changed(rgb: np.ndarray) -> np.ndarray:
    return (rgb != GREY).any(axis=2)


def test_each_keypoint_is_a_dot_of_its_sides_colour_centred_on_its_pixel():
    drawn = draw.draw_instance(picture(), kite(2, 2, 2), UNJOINED)
    assert tuple(drawn[15, 60]) == draw.MIDDLE
    assert tuple(drawn[60, 95]) == draw.LEFT
    assert tuple(drawn[60, 25]) == draw.RIGHT
    rows, columns = np.nonzero(changed(drawn[:40]))
    assert (columns.mean(), rows.mean()) == pytest.approx((60, 15), abs=0.1)


def test_the_three_hues_differ():
    assert len({draw.LEFT, draw.RIGHT, draw.MIDDLE}) == 3


def test_keypoints_without_a_mirror_image_have_colours_of_their_own():
    names = tuple(f"vertebra {number}" for number in range(30))
    colours = draw.keypoint_colours(Skeleton("snake", (*names, "left_eye", "right_eye")))
    assert list(colours) == [*names, "left_eye", "right_eye"]
    assert len(set(colours.values())) == 32
    assert colours["vertebra 0"] == draw.MIDDLE
    assert (colours["left_eye"], colours["right_eye"]) == (draw.LEFT, draw.RIGHT)


@pytest.mark.parametrize(("count", "apart"), [(8, 25), (16, 15), (30, 10)])
def test_a_colour_blind_person_can_tell_them_apart(count, apart):
    names = tuple(map(str, range(count)))
    colours = np.array(
        [draw.LEFT, draw.RIGHT, *draw.keypoint_colours(Skeleton("n", names)).values()]
    )
    for lab in draw._as_seen(colours):
        away = np.linalg.norm(lab[:, None] - lab, axis=2)
        assert away[~np.eye(len(colours), dtype=bool)].min() > apart


def test_an_unlabelled_keypoint_and_its_edges_are_not_drawn():
    drawn = draw.draw_instance(picture(), kite(2, 0, 0), SKELETON)
    marks = changed(drawn)
    assert marks[15, 60]
    marks[5:26, 50:71] = False
    assert not marks.any()


def test_an_occluded_keypoint_is_a_ring_that_shows_the_picture_inside():
    drawn = draw.draw_instance(picture(), kite(2, 1, 2), SKELETON, thickness=3)
    assert tuple(drawn[60, 95]) == (GREY, GREY, GREY)
    assert changed(drawn)[50:71, 85:106].any()
    assert tuple(drawn[60, 25]) == draw.RIGHT


@pytest.mark.parametrize("thickness", [1, 3, 6])
def test_a_ring_is_larger_than_a_dot_and_has_a_dark_outline(thickness):
    drawn = draw.draw_instance(picture(), kite(2, 1, 2), UNJOINED, thickness)
    across_ring, across_dot = drawn[60, 75:116], drawn[60, 5:46]
    ring, dot = (np.flatnonzero((row != GREY).any(axis=1)) for row in (across_ring, across_dot))
    assert np.ptp(ring) > np.ptp(dot)
    assert across_ring[ring[0]].max() < GREY
    assert across_ring[ring[-1]].max() < GREY
    assert (across_ring[:, 0].astype(int) - across_ring[:, 2] > 180).any()


def test_an_edge_takes_its_side_and_an_edge_across_is_middle():
    drawn = draw.draw_instance(picture(), kite(2, 2, 2), SKELETON, thickness=3)
    assert tuple(drawn[60, 60]) == draw.MIDDLE
    assert tuple(drawn[38, 78]) == draw.LEFT


def test_the_side_is_read_from_the_flip_pairs_not_from_the_order():
    mirrored = Skeleton("kite", SKELETON.keypoints, flip_pairs=(("right_wing", "left_wing"),))
    drawn = draw.draw_instance(picture(), kite(2, 2, 2), mirrored)
    assert tuple(drawn[60, 25]) == draw.LEFT


def test_a_box_is_whole_and_a_crowds_box_is_dashed_in_another_colour():
    box = np.array([20.5, 10.5, 100.5, 80.5])
    plain, crowd = (
        draw.draw_instance(picture(), kite(0, 0, 0, bbox_xyxy=box, is_crowd=dashed), SKELETON, 8)
        for dashed in (False, True)
    )
    assert (plain[10, 21:100] == draw.BOX).all()
    drawn = (crowd[10, 21:100] == draw.CROWD_BOX).all(axis=1)
    assert drawn.any()
    assert not changed(crowd)[10, 21:100].all()


def test_the_given_picture_is_left_alone():
    rgb = picture()
    draw.draw_instance(rgb, kite(2, 1, 2), SKELETON)
    assert (rgb == GREY).all()


def kite_sample(*instances: Instance) -> Sample:
    data = codec.encode(picture(), "png")
    return Sample("1", ImageRef("1.png", width=120, height=90, data=data, format="png"), instances)


def test_a_sample_is_resized_to_its_longer_side_with_its_keypoints():
    drawn = draw.draw_sample(kite_sample(kite(2, 2, 2)), UNJOINED, size=360)
    assert drawn.shape == (270, 360, 3)
    assert tuple(drawn[3 * 60 + 1, 3 * 95 + 1]) == draw.LEFT


def test_a_sample_keeps_its_size_and_shows_every_instance():
    shifted = Instance(np.array([[10.5, 80.5, 2], [0, 0, 0], [0, 0, 0]], np.float32))
    drawn = draw.draw_sample(kite_sample(kite(2, 2, 2), shifted), UNJOINED)
    assert drawn.shape == (90, 120, 3)
    assert tuple(drawn[80, 10]) == tuple(drawn[15, 60]) == draw.MIDDLE


def flat(red: int, width: int = 40, height: int = 40) -> np.ndarray:
    return np.full((height, width, 3), (red, 0, 255), np.uint8)


def test_a_contact_sheet_goes_row_by_row_with_every_tile_fitted():
    reds = [10, 60, 110, 160, 210]
    tiles = [(flat(red, 40, 20 + 5 * n), f"tile {n}") for n, red in enumerate(reds)]
    sheet = contact_sheet(tiles, columns=3, tile=64)
    blocks = (sheet[..., 1] == 0) & (sheet[..., 2] == 255)
    count, marks, stats, centres = cv2.connectedComponentsWithStats(blocks.astype(np.uint8))
    assert count == 1 + len(reds)
    order = sorted(range(1, count), key=lambda n: (round(centres[n][1] / 60), centres[n][0]))
    assert [int(sheet[marks == n][0, 0]) for n in order] == reds
    assert max(stats[1:, cv2.CC_STAT_WIDTH]) == 64
    assert sheet.shape[1] == pytest.approx(3 * 64, abs=20)
    assert 2 * 64 < sheet.shape[0] < 2 * 64 + 60


def test_a_contact_sheet_is_about_square_by_default():
    sheet = contact_sheet([(flat(10), "")] * 9, tile=64)
    assert sheet.shape[1] == pytest.approx(3 * 64, abs=20)


def test_captions_are_written_below_and_cut_to_the_tile():
    plain = contact_sheet([(flat(10), "")], tile=64)
    short = contact_sheet([(flat(10), "one")], tile=64)
    long = contact_sheet([(flat(10), "a very long caption " * 9)], tile=64)
    assert (short[:68] == plain[:68]).all()
    assert (short[68:] != plain[68:]).any()
    assert (long[:, 68:] == plain[:, 68:]).all()


def captioned(caption: str) -> np.ndarray:
    return contact_sheet([(flat(10), caption)], tile=128)


def test_a_long_caption_keeps_its_end_and_its_beginning():
    base = captioned("a" * 200)
    assert (captioned("b" + "a" * 199) != base).any()
    assert (captioned("a" * 199 + "b") != base).any()
    assert (captioned("a" * 100 + "b" + "a" * 99) == base).all()


def has(rgb: np.ndarray, colour: draw.Colour) -> bool:
    return bool((rgb == colour).all(axis=2).any())


def test_a_legend_stands_below_the_tiles_with_every_colour_that_is_drawn():
    tiles = [(flat(10), "one")] * 6
    plain = contact_sheet(tiles, tile=64)
    sheet = contact_sheet(tiles, tile=64, skeleton=SKELETON)
    legend = sheet[len(plain) :]
    assert (sheet[: len(plain)] == plain).all()
    assert all(has(legend, colour) for colour in (draw.LEFT, draw.RIGHT, draw.MIDDLE))
    alone = contact_sheet(tiles, tile=64, skeleton=Skeleton("dot", ("dot",)))[len(plain) :]
    assert has(alone, draw.MIDDLE)
    assert not has(alone, draw.LEFT)


def test_a_picture_gets_a_legend_only_where_there_is_room():
    large, small = picture(480, 360), picture(40, 30)
    assert (with_legend(large, SKELETON)[:360] == large).all()
    assert has(with_legend(large, SKELETON)[360:], draw.LEFT)
    assert with_legend(small, SKELETON).shape == small.shape
    crowd = Skeleton("crowd", tuple(f"keypoint {number}" for number in range(300)))
    assert with_legend(large, crowd).shape == large.shape


def test_a_legend_without_room_is_not_drawn(monkeypatch):
    monkeypatch.setattr("kpdata.view.sheet._legend", lambda *_: pytest.fail("drawn"))
    crowd = Skeleton("crowd", tuple(f"keypoint {number}" for number in range(1000)))
    assert with_legend(picture(1920, 1080), crowd).shape == (1080, 1920, 3)


def test_a_contact_sheet_without_tiles_is_one_pixel():
    assert contact_sheet([]).shape == (1, 1, 3)


def test_a_png_reads_back_and_leaves_no_temporary_file(tmp_path):
    rgb = np.random.default_rng(0).integers(0, 256, (7, 9, 3), np.uint8)
    draw.write_png(tmp_path / "sheet.png", rgb)
    assert (codec.decode((tmp_path / "sheet.png").read_bytes()) == rgb).all()
    assert [path.name for path in tmp_path.iterdir()] == ["sheet.png"]


def test_a_png_that_cannot_be_put_in_place_leaves_the_folder_as_it_was(tmp_path):
    (tmp_path / "sheet.png").mkdir()
    with pytest.raises(OSError, match="sheet"):
        draw.write_png(tmp_path / "sheet.png", flat(1))
    assert [path.name for path in tmp_path.iterdir()] == ["sheet.png"]
