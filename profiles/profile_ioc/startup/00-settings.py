"""What the session is made of: settings.toml of this profile. Comes before anything that imports ophyd."""

from pathlib import Path

from ptychrome.profiles.beamline_settings import BeamlineSettings
from ptychrome.profiles.channel_access import prepare_channel_access
from ptychrome.profiles.settings import read_settings

settings = read_settings(Path(__file__).parents[1] / "settings.toml", BeamlineSettings)
prepare_channel_access(settings.channel_access)
