"""The settings of a GAN's run: judged at once, compared, written down."""

import json
from dataclasses import replace

import pytest

from nsync.errors import InputError
from nsync.supcon.gan import FAMILIES
from nsync.supcon.gan.settings import GanSettings, defaults


def test_every_family_has_defaults_that_can_be():
    for name, family in FAMILIES.items():
        settings = defaults(family())
        settings.check()
        assert settings.augmentation == "none"
        published = (settings.generator_rate, settings.discriminator_rate, settings.beta1)
        if name in ("SSA-GAN", "GALIP"):
            assert (*published, settings.beta2) == (1e-4, 4e-4, 0.0, 0.9)
            assert settings.ema == 0
        else:
            assert (*published, settings.beta2) == (2e-4, 2e-4, 0.5, 0.999)
            assert (settings.adversarial, settings.penalty_weight) == ("cross-entropy", 0)


@pytest.mark.parametrize(
    ("changed", "text"),
    [
        ({"steps": 0}, "`steps` at least 1"),
        ({"batch": 1}, "`batch` at least 2"),
        ({"generator_rate": 0.0}, "`generator_rate` a number above 0"),
        ({"discriminator_rate": float("inf")}, "`discriminator_rate` a number above 0"),
        ({"beta1": 1.0}, "`beta1` at least 0 and below 1"),
        ({"ema": -0.1}, "`ema` at least 0 and below 1"),
        ({"augmentation": "colour"}, "`augmentation` one of none, translation"),
        ({"penalty_weight": -1.0}, "`penalty_weight` at least 0"),
        ({"penalty_every": 0}, "`penalty_every` at least 1"),
        ({"match_weight": float("nan")}, "`match_weight` at least 0"),
        ({"adversarial": "wasserstein"}, "`adversarial` one of hinge, cross-entropy"),
        ({"divergence_weight": -1.0}, "`divergence_weight` at least 0"),
        ({"contrast": "simclr"}, "`contrast` one of .*supcon"),
        ({"image_text": -0.1}, "`image_text` at least 0"),
        ({"temperature": 0.0}, "`temperature` a number above 0"),
        ({"keep_last": 0}, "`keep_last` at least 1"),
        ({"warmup": -1, "r1_gamma": -2.0}, "(?s)warmup, r1_gamma.*got `warmup` = -1; `r1_gamma`"),
    ],
)
def test_bad_settings_are_one_error(changed, text):
    with pytest.raises(InputError, match=text):
        replace(GanSettings(), **changed).check()


def test_what_makes_another_run_and_what_does_not():
    settings = GanSettings()
    same = replace(settings, steps=9, log_every=1, preview_every=1, save_every=1, pause_every=1)
    assert settings.differs(same) == {}
    other = replace(settings, contrast="none", seed=1)
    assert settings.differs(other) == {"contrast": ("supcon", "none"), "seed": (0, 1)}


def test_settings_go_through_json():
    settings = replace(GanSettings(), augmentation="none", contrast_real=True)
    assert GanSettings(**json.loads(json.dumps(settings.as_dict()))) == settings


def test_the_contrasts_weights_leave_texts_among_themselves_out():
    assert GanSettings(image_image=0.3, image_text=0.4, text_image=0.5).weights == (
        0.3,
        0,
        0.4,
        0.5,
    )


def test_the_usual_augmentation_leaves_what_captions_name():
    assert GanSettings().policies == ("translation",)


def test_the_rate_warms_up():
    settings = replace(GanSettings(), warmup=3)
    assert [settings.factor(step) for step in range(5)] == [0.25, 0.5, 0.75, 1, 1]
