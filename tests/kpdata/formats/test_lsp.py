import contextlib
import io
import warnings

import numpy as np
import pytest
import scipy.io

from kpdata.core.errors import FormatError
from kpdata.core.sample import Rejected
from kpdata.core.skeletons import LSP14
from kpdata.formats import read
from kpdata.formats.lsp import read as lsp


def save(folder, joints, name="joints"):
    (folder / "images").mkdir(exist_ok=True)
    path = folder / "joints.mat"
    scipy.io.savemat(path, {name: joints})
    return path


def lsp_joints(count=3):
    """(3, 14, count): image n, keypoint k lies at (10 n + k + 1, k + 2), flag of every third 1."""
    joints = np.zeros((3, 14, count))
    for n in range(count):
        for k in range(14):
            joints[:, k, n] = 10 * n + k + 1, k + 2, k % 3 == 0
    return joints


def test_lsp_flag_1_is_occluded_and_pixels_are_1_based(tmp_path):
    samples = list(lsp.read(save(tmp_path, lsp_joints())).samples)
    keypoints = samples[2].instances[0].keypoints
    assert keypoints[4].tolist() == [24.5, 5.5, 2]
    assert keypoints[3].tolist() == [23.5, 4.5, 1]
    assert [s.key for s in samples] == ["im0001.jpg", "im0002.jpg", "im0003.jpg"]
    assert samples[0].image.name == "im0001.jpg"
    assert samples[0].image.uri == str(tmp_path / "images" / "im0001.jpg")
    assert samples[0].instances[0].category == "person"


def test_lspet_flag_1_is_labelled_and_0_is_missing(tmp_path):
    joints = lsp_joints().transpose(1, 0, 2)
    joints[1, :2, 0] = 0, -26
    samples = list(lsp.read_lspet(save(tmp_path, joints)).samples)
    keypoints = samples[0].instances[0].keypoints
    assert keypoints[0].tolist() == [0.5, 1.5, 2]
    assert keypoints[1].tolist() == [0, 0, 0]
    assert samples[2].key == "im00003.jpg"
    assert samples[2].split is None


def test_only_the_full_lsp_has_an_official_split(tmp_path):
    samples = list(lsp.read(save(tmp_path, lsp_joints(2000))).samples)
    assert [s.split for s in samples] == ["train"] * 1000 + ["test"] * 1000
    assert {s.split for s in lsp.read(save(tmp_path, lsp_joints(1999))).samples} == {None}


def test_source_says_what_was_read(tmp_path):
    source = lsp.read(save(tmp_path, lsp_joints()))
    assert source.skeleton == LSP14
    assert source.images_root == tmp_path / "images"
    assert source.annotation_files == (tmp_path / "joints.mat",)
    assert not source.has_boxes


def test_one_image_whose_last_axis_matlab_dropped(tmp_path):
    assert len(list(lsp.read(save(tmp_path, lsp_joints(1)[:, :, 0])).samples)) == 1


def test_integer_joints_are_numbers_too(tmp_path):
    samples = list(lsp.read(save(tmp_path, lsp_joints().astype(np.int16))).samples)
    assert samples[0].instances[0].keypoints[1].tolist() == [1.5, 2.5, 2]


@pytest.mark.parametrize("value", [2, -1, 0.5, np.nan])
@pytest.mark.parametrize("reader", ["lsp", "lspet"])
def test_an_unknown_flag_rejects_that_image_alone(tmp_path, value, reader):
    joints = lsp_joints()
    joints[2, 5, 1] = value
    path = save(tmp_path, joints if reader == "lsp" else joints.transpose(1, 0, 2))
    first, bad, last = read(reader, path).samples
    assert not isinstance(first, Rejected)
    assert not isinstance(last, Rejected)
    assert isinstance(bad, Rejected)
    assert bad.reason == "bad keypoints"
    assert "image 2" in bad.detail
    assert "left_ankle" in bad.detail
    assert str(path) in bad.detail


@pytest.mark.parametrize("value", [np.nan, np.inf, 1e300, -1.1e7])
def test_a_coordinate_that_no_picture_has_rejects_that_image(tmp_path, value):
    joints = lsp_joints()
    joints[0, 5, 1] = value
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        _, bad, _ = lsp.read(save(tmp_path, joints)).samples
    assert isinstance(bad, Rejected)
    assert bad.key == "im0002.jpg"
    assert f"left_ankle is [{value}, 7.0, 0.0]: expected x and y within 1e+07 pixels" in bad.detail


def test_each_reader_refuses_the_others_file_and_names_the_right_one(tmp_path):
    with pytest.raises(FormatError, match=r"shape \(14, 3, 3\).*read it as lspet"):
        lsp.read(save(tmp_path, lsp_joints().transpose(1, 0, 2)))
    with pytest.raises(FormatError, match=r"shape \(3, 14, 3\).*read it as lsp$"):
        lsp.read_lspet(save(tmp_path, lsp_joints()))


@pytest.mark.parametrize("shape", [(3, 16, 5), (5, 3, 14), (42,), (3, 14, 2, 2), (3, 14, 0)])
def test_any_other_shape_is_refused_with_the_shape(tmp_path, shape):
    with pytest.raises(FormatError, match=r"joints has shape \(.*lsp's is \(3, 14, N\)"):
        lsp.read(save(tmp_path, np.zeros(shape)))


def test_a_missing_key_lists_what_is_there(tmp_path):
    with pytest.raises(FormatError, match="no variable 'joints', it holds 'RELEASE'"):
        lsp.read(save(tmp_path, lsp_joints(), name="RELEASE"))


@pytest.mark.parametrize(
    "joints",
    [
        np.full((3, 14, 2), 0, object),
        np.array([["text"]]),
        {"field": 1},
        np.ones((3, 14, 2), complex),
    ],
)
def test_cells_structs_text_and_complex_numbers_are_refused(tmp_path, joints):
    with pytest.raises(FormatError, match=r"joints\.mat: joints (is|has)"):
        lsp.read(save(tmp_path, joints))


@pytest.mark.parametrize("seed", range(20))
@pytest.mark.parametrize("size", [1, 7, 200, 5000])
def test_random_bytes_end_in_a_message(tmp_path, seed, size):
    path = save(tmp_path, lsp_joints())
    path.write_bytes(np.random.default_rng(seed).bytes(size))
    with pytest.raises(FormatError, match=r"joints\.mat: "):
        lsp.read(path)


@pytest.mark.parametrize("compress", [False, True])
def test_a_cut_file_ends_in_a_message_wherever_it_is_cut(tmp_path, compress):
    buffer = io.BytesIO()
    scipy.io.savemat(buffer, {"joints": lsp_joints(20)}, do_compression=compress)
    path = save(tmp_path, lsp_joints())
    data = buffer.getvalue()
    for kept in (*range(0, 200, 7), len(data) // 2, len(data) - 9):
        path.write_bytes(data[:kept])
        with pytest.raises(FormatError, match=r"joints\.mat: "):
            lsp.read(path)


@pytest.mark.parametrize("where", [130, 133, 140, 144, 150, 160, 170, 176, 184])
def test_a_damaged_header_never_escapes_as_another_error(tmp_path, where):
    path = save(tmp_path, lsp_joints())
    data = bytearray(path.read_bytes())
    for value in (0, 1, 7, 0x7F, 0xFF):
        data[where] = value
        path.write_bytes(data)
        with contextlib.suppress(FormatError):
            assert len(list(lsp.read(path).samples)) == 3


def test_a_v73_file_says_how_to_resave_it(tmp_path):
    path = save(tmp_path, lsp_joints())
    matlab = b"MATLAB 7.3 MAT-file".ljust(124) + b"\x00\x02IM" + bytes(400)
    for data in (matlab, b"\x89HDF\r\n\x1a\n" + bytes(512)):
        path.write_bytes(data)
        with pytest.raises(FormatError, match=r"v7\.3 \(HDF5\).*save\(\.\.\., '-v7'\)"):
            lsp.read(path)


def test_an_oversized_file_is_refused_unread(tmp_path, monkeypatch):
    path = save(tmp_path, lsp_joints())
    monkeypatch.setattr(lsp, "MAX_BYTES", 100)
    with pytest.raises(FormatError, match="bytes: expected at most 100"):
        lsp.read(path)


def test_missing_empty_and_folder_are_told_apart(tmp_path):
    with pytest.raises(FormatError, match="no such file"):
        lsp.read(tmp_path / "joints.mat")
    with pytest.raises(FormatError, match="is a folder"):
        lsp.read(tmp_path)
    (tmp_path / "joints.mat").write_bytes(b"")
    with pytest.raises(FormatError, match="is empty"):
        lsp.read(tmp_path / "joints.mat")


def test_images_are_found_beside_or_where_told(tmp_path):
    path = save(tmp_path, lsp_joints())
    (tmp_path / "images").rename(tmp_path / "pictures")
    with pytest.raises(FormatError, match=r"no images found .*images\): give `images`"):
        lsp.read(path)
    with pytest.raises(FormatError, match="nowhere: no such folder"):
        lsp.read(path, images=tmp_path / "nowhere")
    assert lsp.read(path, images=tmp_path / "pictures").images_root == tmp_path / "pictures"


def test_the_real_file(real_data):
    path = real_data / "lsp" / "joints.mat"
    samples = list(read("lsp", path).samples)
    assert len(samples) == 2000
    keypoints = np.stack([s.instances[0].keypoints for s in samples])
    assert (keypoints[..., 2] == 1).sum() == 2044  # 7.30 % of 28,000
    assert (keypoints[..., 2] > 0).all()
    joints = scipy.io.loadmat(path)["joints"]
    np.testing.assert_allclose(
        keypoints[..., :2], joints[:2].transpose(2, 1, 0) - 0.5, rtol=0, atol=1e-4
    )
    occluded = (keypoints[..., 2] == 1).mean(axis=0)
    assert occluded[LSP14.index("left_wrist")] > 0.1 > 0.01 > occluded[LSP14.index("head_top")]
