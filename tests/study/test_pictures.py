import torch
from study_fixtures import make_settings, make_space

from hwsearch.accuracy.data.sources import load_data
from hwsearch.study.asked.pictures import load_pictures


def test_pictures_when_loaded_have_every_side_of_the_space() -> None:
    space = make_space(input_px=[24, 16])
    data = load_pictures(make_settings(space=space, data="digits", seed=5))
    assert data.px == 16
    for px in (16, 24):
        alone = load_data("digits", px=px, seed=5)
        assert torch.equal(data.at(px).train.images, alone.train.images)
        assert torch.equal(data.at(px).test.images, alone.test.images)
