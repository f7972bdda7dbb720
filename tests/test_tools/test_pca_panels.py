from PIL import Image

from tests.runs import refusal_of, run_tool

TOOL = 'analysis_tools/pca_panels.py'


def test_picture(distilled, distilled_run, tmp_path):
    done = run_tool(
        TOOL, *(distilled_run, distilled[1], '--num-images', 2, '--size', 56), *('--out', tmp_path)
    )
    assert done.returncode == 0, done.stderr
    links = distilled[2].links.values()
    # a column for each teacher's map and one for each pair
    columns = 6 + len(links) + sum(len(link.levels.pairs) for link in links)
    size = Image.open(tmp_path / 'pca_panels.png').size
    assert size == (columns * 240, 2 * 240)


def test_one_sentence_without_images(distilled, distilled_run, tmp_path, monkeypatch, capsys):
    arguments = [distilled_run, distilled[1], '--images', tmp_path / 'none']
    line = refusal_of(TOOL, arguments, monkeypatch, capsys)
    assert "none' does not exist" in line
