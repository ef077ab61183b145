"""Settings of a beamline: what they hold, and what is refused by name."""

import tomllib
from pathlib import Path

import pytest

from ptychrome.profiles.beamline_settings import BeamlineSettings
from ptychrome.profiles.errors import UserError
from ptychrome.profiles.ioc import IOCOptions, ioc_settings
from ptychrome.profiles.remote_tiled import RemoteTiled
from ptychrome.profiles.settings import read_settings

PROFILES = Path(__file__).parents[2] / "profiles"


@pytest.mark.parametrize("profile", ["profile_ioc", "profile_epics"])
def test_the_settings_of_the_profiles_are_valid(profile):
    settings = read_settings(PROFILES / profile / "settings.toml", BeamlineSettings)
    assert settings.eiger.distance_m > 1


def test_profile_epics_names_every_key_that_a_beamline_may_want():
    content = tomllib.loads((PROFILES / "profile_epics" / "settings.toml").read_text())
    sections = {"dcm", "stage", "suspend", "channel_access", "probe"}
    for section in sections:
        assert set(content[section]) == set(BeamlineSettings.model_fields[section].annotation.model_fields)
    eiger = BeamlineSettings.model_fields["eiger"].annotation
    assert set(content["eiger"]) == set(eiger.model_fields) - {"mask_dataset", "bit_depth"}
    assert set(BeamlineSettings.model_fields) - set(content) == {"workers", "tiled_uri", "flyer"}


@pytest.mark.parametrize(
    ("line", "other", "complaint"),
    [
        ("distance_m = 2.5", "distance_m = -2.5", "eiger.distance_m: Input should be greater than 0"),
        ('kind = "piezo"', 'kind = "hexapod"', "stage.kind: Input should be 'piezo' or 'motors'"),
        ('prefix = "BL:DCM:"', "", "dcm.prefix: Field required"),
        ('read_directory = "/data/frames"', "", "write_directory is set and read_directory is not"),
        ("resume_mA = 90.0", "resume_mA = 10.0", "resume_mA is 10.0; expected at least ring_current_mA"),
        ('i0 = "BL:IC1', 'i0 = "BL IC1', "i0: String should match pattern"),
        ("tiled_port = 8000", 'tiled_uri = "facility.org"', "tiled_uri: String should match pattern"),
    ],
)
def test_mistakes_are_named(tmp_path, line, other, complaint):
    text = (PROFILES / "profile_epics" / "settings.toml").read_text()
    assert line in text
    file = tmp_path / "settings.toml"
    file.write_text(text.replace(line, other, 1))
    with pytest.raises(UserError) as error:
        read_settings(file, BeamlineSettings)
    assert str(error.value).startswith(str(file))
    assert complaint in str(error.value)


def test_settings_for_an_ioc_have_its_prefix_port_and_frames():
    options = IOCOptions(prefix="X1:", port=5071, frame_pixels=64)
    settings = ioc_settings(options, stage={"kind": "motors"}, shutter="Y:Shutter")
    assert settings.channel_access.addresses == ("127.0.0.1:5071",)
    assert settings.eiger.shape == (64, 64)
    assert settings.dcm.prefix == "X1:DCM:"
    assert settings.stage.kind == "motors"
    assert settings.shutter == "Y:Shutter"


def test_web_pages_of_a_facilitys_tiled():
    tiled = RemoteTiled("https://tiled.facility.org/vanadium/api/v1/")
    assert tiled.web_address("raw", "1") == "https://tiled.facility.org/vanadium/ui/browse/raw/1"
