import numpy as np
import pytest

from kpu_mm.apis.inputs import count_images, is_video, list_inputs


@pytest.fixture
def folder(tmp_path):
    for name in ('b.PNG', 'a.jpg', 'clip.avi', 'notes.txt', 'deep/c.webp'):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    return tmp_path


def names(inputs):
    return [item.rpartition('/')[2] for item in list_inputs(inputs)]


def test_folders_and_wildcards(folder):
    assert (
        names(folder) == names(str(folder)) == ['a.jpg', 'b.PNG', 'clip.avi']
    )
    assert names(f'{folder}/*.jpg') == ['a.jpg']
    assert names(f'{folder}/**/*.[jw]*') == ['a.jpg', 'c.webp']
    # what is named is taken, whatever its suffix
    assert names(folder / 'notes.txt') == ['notes.txt']


def test_lists_and_memory(folder):
    array = np.zeros((4, 4, 3), np.uint8)
    found = list_inputs(
        [array, [folder / 'a.jpg', f'{folder}/*.PNG'], 'http://x/y']
    )
    assert found[0] is array
    assert found[1:] == [f'{folder}/a.jpg', f'{folder}/b.PNG', 'http://x/y']
    assert list_inputs(array)[0] is array


def test_what_is_missing(folder):
    with pytest.raises(FileNotFoundError, match=r"where.jpg' does not exist"):
        list_inputs([folder / 'a.jpg', folder / 'nowhere.jpg'])
    with pytest.raises(FileNotFoundError, match='no file matches'):
        list_inputs(f'{folder}/*.bmp')
    (folder / 'empty').mkdir()
    with pytest.raises(FileNotFoundError, match=r"empty' has no image"):
        list_inputs(folder / 'empty')
    with pytest.raises(ValueError, match='list of inputs is empty'):
        list_inputs([])


def test_videos(video):
    assert is_video(str(video)) and not is_video('a.jpg')
    assert not is_video(np.zeros((4, 4, 3), np.uint8))
    assert count_images([str(video), 'a.jpg']) == 8
    assert count_images([str(video), 'a.jpg'], video_stride=3) == 4
    with pytest.raises(ValueError, match='download it'):
        is_video('https://host/clip.mp4?size=1')
