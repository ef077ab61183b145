"""What the session is made of: settings.toml of this profile."""

from pathlib import Path

from ptychrome.profiles.settings import TwinSessionSettings, read_settings

settings = read_settings(Path(__file__).parents[1] / "settings.toml", TwinSessionSettings)
